"""DeepSpeed's own JSON, filled from our settings; what contradicts them is refused before anything starts. No torch, no deepspeed here."""

import copy
import hashlib
import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import pydantic

from ocr.settings import Setting, Settings

if TYPE_CHECKING:
    from trainers.config import TrainConfig

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
engine      optimizer.name                                                        base or weights
all_reduce  adamw, adam, adamw_8bit, paged_adamw_8bit, paged_adamw_32bit           float32, bfloat16, float16, 4-bit, 8-bit
deepspeed   adamw                                                                  float32, bfloat16, float16"""


class DeepSpeedSettings(Settings):
    """What engine=deepspeed divides among the workers."""

    config: dict[str, Any] | None = Setting(
        None,
        on_resume="rounding",
        description="DeepSpeed's JSON, or its path, such as configs/deepspeed/zero2.json; `auto` in it is filled from this run",
    )
    offload_optimizer: Literal["none", "cpu"] = Setting(
        "none",
        on_resume="rounding",
        description="where the optimizer's state lies, for `offload_optimizer: auto` of the JSON",
    )

    @pydantic.field_validator("config", mode="before")
    @classmethod
    def _read(cls, given: Any) -> Any:
        """A path becomes what it holds, so that every worker, and the run's config.yaml, has the very same."""
        return _content(given) if isinstance(given, str) else given

    @property
    def stage(self) -> int:
        """1: optimizer state is divided; 2: gradients too; 3: weights too. 0: the JSON does not say."""
        return int((self.config or {}).get("zero_optimization", {}).get("stage", 0))

    @property
    def told(self) -> str:
        """What of it may change a last bit, for a run's history."""
        digest = hashlib.sha256(
            json.dumps([self.config, self.offload_optimizer], sort_keys=True).encode()
        ).hexdigest()[:8]
        return f"deepspeed zero{self.stage} {digest}"


def contradictions(config: "TrainConfig") -> Iterator[str]:
    """All that speaks against engine=deepspeed in these settings."""
    settings = config.deepspeed
    if settings.config is None:
        yield "engine=deepspeed needs deepspeed.config, such as configs/deepspeed/zero2.json"
        return
    quantised = config.family == "vlm" and config.vlm.quantised
    if config.optimizer.name != "adamw" or quantised:
        found = f"optimizer.name={config.optimizer.name}" + (
            " on a quantised base" if quantised else ""
        )
        yield f"engine=deepspeed does not go with {found}; what goes together:{ALLOWED}"
    if config.family == "vlm" and config.vlm.device_map:
        yield "engine=deepspeed places the model itself; leave model.device_map out"
    if settings.stage not in (1, 2, 3):
        yield f"deepspeed.config: zero_optimization.stage is {settings.stage}; 1, 2 or 3 is expected (engine=all_reduce divides nothing)"
    for key, ours in _OURS.items():
        if settings.config.get(key, AUTO) != AUTO:
            yield f"deepspeed.config: {key} is set by {ours} here; leave it out"
    for key, value in _from_ours(config).items():
        given = settings.config.get(key, AUTO)
        if given not in (AUTO, value):
            yield f"deepspeed.config: {key} is {given}, this run's is {value}; write auto"


def filled(config: "TrainConfig") -> dict[str, Any]:
    """DeepSpeed's configuration of this run: every `auto` filled in, what we leave to ourselves left out."""
    given = copy.deepcopy(config.deepspeed.config or {})
    values: dict[str, Any] = {
        key: value for key, value in given.items() if key not in _OURS
    } | dict(_from_ours(config))
    zero = values["zero_optimization"]
    if zero.get("offload_optimizer", AUTO) == AUTO:
        zero["offload_optimizer"] = {
            "device": config.deepspeed.offload_optimizer,
            "pin_memory": False,
        }
    return {
        **values,
        "zero_force_ds_cpu_optimizer": False,
    }  # torch's own AdamW steps on the CPU too, without a compiler


def _from_ours(config: "TrainConfig") -> Mapping[str, Any]:
    return {
        "train_micro_batch_size_per_gpu": config.train.micro_batch_size,
        "gradient_accumulation_steps": 1,  # micro-batches are added up by the engine
        "gradient_clipping": config.optimizer.max_grad_norm,
    }


def _content(path: str) -> dict[str, Any]:
    file = next((place for place in (Path(path), _PROJECT / path) if place.is_file()), None)
    if file is None:
        raise ValueError(
            f"{path}: no such file; configs/deepspeed/ has zero1.json, zero2.json and zero3.json"
        )
    try:
        content = json.loads(file.read_text(encoding="utf-8"))
    except ValueError as problem:
        raise ValueError(f"{path}: not valid JSON: {problem}") from None
    if not isinstance(content, dict) or not isinstance(content.get("zero_optimization"), dict):
        raise ValueError(
            f"{path}: DeepSpeed's settings with a group zero_optimization were expected"
        )
    return content
