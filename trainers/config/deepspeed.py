"""DeepSpeed's own JSON, filled from our settings. No torch and no deepspeed here.

A JSON that contradicts our settings is refused before anything starts.
"""

import copy
import hashlib
import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, Literal

import pydantic

from ocr.recognizers.vlm.settings import TinyVlmSettings, VlmSettings
from ocr.settings import Setting, Settings, with_home
from trainers.config.training import LoopSettings, OptimizerSettings

AUTO = "auto"  # as in Hugging Face's DeepSpeed files: filled from the run's settings
_PROJECT = Path(__file__).resolve().parent.parent.parent
_OURS = {
    "optimizer": "optimizer.name",
    "scheduler": "optimizer.lr_scheduler_type",
    "fp16": "precision",
    "bf16": "precision",
    "amp": "precision",
    "torch_autocast": "precision",
    "data_types": "precision",
    "train_batch_size": "train.global_batch_size",
    "checkpoint": "train.save_steps",
    "activation_checkpointing": "model.gradient_checkpointing",
    "communication_data_type": "precision",
}
ALLOWED = """
  all_reduce: adamw, adam, adamw_8bit, paged_adamw_8bit, paged_adamw_32bit, on any base
  deepspeed, zero1 and zero2: adamw, adamw_8bit, on any base
  deepspeed, zero3: adamw, on a base or weights in float32, bfloat16 or float16"""


class DeepSpeedSettings(Settings):
    """How engine=deepspeed divides the run among the workers."""

    config: dict[str, Any] | None = Setting(
        None,
        on_resume="rounding",
        description="DeepSpeed's JSON, or its path, such as configs/deepspeed/zero2.json; `auto` "
        "in it is filled from this run",
    )
    offload_optimizer: Literal["none", "cpu"] = Setting(
        "none",
        on_resume="rounding",
        description="Memory that holds the optimizer's state where the JSON says "
        "`offload_optimizer: auto`",
    )

    @pydantic.field_validator("config", mode="before")
    @classmethod
    def _read(cls, given: Any) -> Any:
        """Replace a path by its content: every worker and the run's config.yaml have the same."""
        return _content(given) if isinstance(given, str) else given

    @property
    def stage(self) -> int:
        """1: optimizer state is divided; 2: gradients too; 3: weights too. 0: not in the JSON."""
        return int((self.config or {}).get("zero_optimization", {}).get("stage", 0))

    @property
    def offloads_optimizer(self) -> bool:
        """Whether the CPU's memory or a disk holds the optimizer's state."""
        given = (self.config or {}).get("zero_optimization", {}).get("offload_optimizer", AUTO)
        device = self.offload_optimizer if given == AUTO else (given or {}).get("device", "none")
        return bool(device != "none")

    @property
    def summary(self) -> str:
        """A line with the stage and a hash of the settings that may change a last bit."""
        digest = hashlib.sha256(
            json.dumps([self.config, self.offload_optimizer], sort_keys=True).encode()
        ).hexdigest()[:8]
        return f"deepspeed zero{self.stage} {digest}"


def contradictions(
    settings: DeepSpeedSettings,
    train: LoopSettings,
    optimizer: OptimizerSettings,
    base: VlmSettings | TinyVlmSettings | None,
) -> Iterator[str]:
    """Return every reason against engine=deepspeed with these settings; `base`: of a VLM run."""
    if settings.config is None:
        yield "engine=deepspeed needs deepspeed.config, such as configs/deepspeed/zero2.json"
        return
    if refused := _refused(settings, optimizer, base):
        yield f"engine=deepspeed does not go with {refused}; what goes together:{ALLOWED}"
    if base is not None and base.device_map:
        yield "engine=deepspeed places the model itself; leave model.device_map out"
    if settings.stage not in (1, 2, 3):
        yield (
            f"deepspeed.config: zero_optimization.stage is {settings.stage}; expected 1, 2 or 3 "
            "(engine=all_reduce divides nothing)"
        )
    for key, ours in _OURS.items():
        if settings.config.get(key, AUTO) != AUTO:
            yield f"deepspeed.config: {key} is set by {ours} here; leave it out"
    for key, value in _from_ours(train, optimizer).items():
        given = settings.config.get(key, AUTO)
        if given not in (AUTO, value):
            yield f"deepspeed.config: {key} is {given}, this run's is {value}; write auto"


def _refused(
    settings: DeepSpeedSettings,
    optimizer: OptimizerSettings,
    base: VlmSettings | TinyVlmSettings | None,
) -> str:
    """Return what DeepSpeed cannot do with this stage, and why; empty for nothing.

    Stages 1 and 2 leave the frozen base whole on every worker, so it may be quantised.
    """
    if optimizer.name not in ("adamw", "adamw_8bit"):
        return f"optimizer.name={optimizer.name}"
    if settings.stage == 3 and base is not None and base.quantised:
        return "a quantised base under zero3, which divides weights and knows no quantised ones"
    if optimizer.name == "adamw_8bit" and settings.stage == 3:
        return "optimizer.name=adamw_8bit under zero3, whose checkpoints gather fp32 moments"
    if optimizer.name == "adamw_8bit" and settings.offloads_optimizer:
        return "optimizer.name=adamw_8bit and an offloaded optimizer; use adamw, or do not offload"
    return ""


def filled(
    settings: DeepSpeedSettings, train: LoopSettings, optimizer: OptimizerSettings
) -> dict[str, Any]:
    """Return DeepSpeed's configuration of a run: every `auto` filled in, our own keys left out."""
    given = copy.deepcopy(settings.config or {})
    values: dict[str, Any] = {key: value for key, value in given.items() if key not in _OURS}
    values |= _from_ours(train, optimizer)
    zero = values["zero_optimization"]
    if zero.get("offload_optimizer", AUTO) == AUTO:
        zero["offload_optimizer"] = {"device": settings.offload_optimizer, "pin_memory": False}
    # torch's own AdamW steps on the CPU too, without a compiler; the 8-bit one is "untested" there
    return {
        **values,
        "zero_force_ds_cpu_optimizer": False,
        "zero_allow_untested_optimizer": optimizer.name == "adamw_8bit",
    }


def _from_ours(train: LoopSettings, optimizer: OptimizerSettings) -> Mapping[str, Any]:
    return {
        "train_micro_batch_size_per_gpu": train.micro_batch_size,
        "gradient_accumulation_steps": 1,  # micro-batches are added up by the engine
        "gradient_clipping": optimizer.max_grad_norm,
    }


def _content(path: str) -> dict[str, Any]:
    file = next((file for file in (Path(with_home(path)), _PROJECT / path) if file.is_file()), None)
    if file is None:
        raise ValueError(
            f"{path}: no such file; configs/deepspeed/ has zero1.json, zero2.json and zero3.json"
        )
    try:
        content = json.loads(file.read_text(encoding="utf-8"))
    except ValueError as problem:
        raise ValueError(f"{path}: not valid JSON: {problem}") from None
    if not isinstance(content, dict) or not isinstance(content.get("zero_optimization"), dict):
        raise ValueError(f"{path}: expected DeepSpeed's settings with a group zero_optimization")
    return content
