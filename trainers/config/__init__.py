"""Every setting of a training run; one YAML file is one `TrainConfig`. No torch, no ray here."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, ClassVar, Literal

import pydantic

from ocr.recognizers.ctc.settings import (
    CompactSettings,
    CrnnSettings,
    DecodingSettings,
    MobileNetSettings,
    NetworkSettings,
    SvtrSettings,
)
from ocr.recognizers.vlm.settings import (
    GenerationSettings,
    ImageSettings,
    LoraSettings,
    TinyVlmSettings,
    VlmSettings,
)
from ocr.settings import Setting, settings_from
from trainers.config.data import DataSettings, with_shared_dictionary
from trainers.config.deepspeed import DeepSpeedSettings, contradictions
from trainers.config.export import ExportSettings
from trainers.config.kornia import KorniaSettings
from trainers.config.stored import stored_values
from trainers.config.training import AugmentSettings, LoopSettings, LossSettings, OptimizerSettings
from trainers.config.where import WhereSettings

__all__ = [
    "AugmentSettings",
    "DataSettings",
    "DeepSpeedSettings",
    "ExportSettings",
    "Family",
    "KorniaSettings",
    "LoopSettings",
    "LossSettings",
    "OptimizerSettings",
    "TrainConfig",
    "config_of_run",
]

Family = Literal["ctc", "vlm"]
FAMILY_GROUPS: dict[str, Family] = {
    "decoding": "ctc",
    "augment": "ctc",
    "lora": "vlm",
    "images": "vlm",
    "generation": "vlm",
    "kornia": "vlm",
}


class TrainConfig(WhereSettings):
    """One run: everything that determines its weights, and where it is stored."""

    renamed: ClassVar[dict[str, str]] = {
        "verify": "list_samples",
        "skip_verification": "skip_preflight",
    }

    data: DataSettings = Setting(on_resume="refuse", description="Data sets")
    train: LoopSettings = Setting(on_resume="refuse", description="Training loop")
    optimizer: OptimizerSettings = Setting(
        OptimizerSettings(), on_resume="refuse", description="Optimizer"
    )
    model: (
        CompactSettings
        | CrnnSettings
        | MobileNetSettings
        | SvtrSettings
        | VlmSettings
        | TinyVlmSettings
    ) = Setting(on_resume="refuse", description="Network", discriminator="kind")
    lora: LoraSettings = Setting(LoraSettings(), on_resume="refuse", description="Adapter (vlm)")
    images: ImageSettings = Setting(
        ImageSettings(), on_resume="refuse", description="Sizes of images (vlm)"
    )
    loss: LossSettings = Setting(LossSettings(), on_resume="refuse", description="Loss")
    augment: AugmentSettings = Setting(
        AugmentSettings(), on_resume="refuse", description="Augmentation of lines (ctc)"
    )
    kornia: KorniaSettings = Setting(
        KorniaSettings(), on_resume="refuse", description="Augmentation on the model's device (vlm)"
    )
    decoding: DecodingSettings = Setting(
        DecodingSettings(),
        on_resume="free",
        description="Decoding: how the bundle turns probabilities into text (ctc)",
    )
    generation: GenerationSettings = Setting(
        GenerationSettings(), on_resume="free", description="Generation of text (vlm)"
    )
    export: ExportSettings = Setting(ExportSettings(), on_resume="free", description="Bundle")
    max_skipped: float = Setting(
        0.01,
        ge=0,
        le=1,
        on_resume="refuse",
        description="Largest share of samples that may be skipped, each with a reason; beyond it "
        "the run refuses to start",
    )
    precision: Literal["auto", "fp32", "bf16", "fp16"] = Setting(
        "auto",
        on_resume="rounding",
        description="Precision of autocast, with a loss scale in fp16; auto: bf16 on GPUs that "
        "compute it natively, else fp32",
    )
    device: Literal["auto", "cpu", "cuda"] = Setting(
        "auto", on_resume="rounding", description="Device; auto: GPUs where Ray has them, else CPU"
    )
    deterministic: bool = Setting(
        True, on_resume="rounding", description="Whether GPUs use deterministic kernels"
    )
    engine: Literal["all_reduce", "deepspeed"] = Setting(
        "all_reduce",
        on_resume="rounding",
        description="Engine that combines gradients. all_reduce: full replica per worker; "
        "deepspeed: sharded (ZeRO)",
    )
    reduce: Literal["fp64", "fp32", "exact"] = Setting(
        "fp64",
        on_resume="rounding",
        description="Sum of gradients (engine=all_reduce). exact: each micro-batch's is rounded to "
        "2^-32, so that fp64 adds without rounding and the weights are the same bits for any "
        "number of workers. fp32: half the traffic and memory",
    )
    deepspeed: DeepSpeedSettings = Setting(
        DeepSpeedSettings(),
        on_resume="rounding",
        description="How the run is divided among workers (engine=deepspeed)",
    )
    report_to: tuple[Literal["tensorboard", "wandb", "mlflow"], ...] = Setting(
        (),
        on_resume="free",
        description="Trackers that get the lines of metrics.jsonl too, one or a list: tensorboard, "
        "in the run's folder (to look: pip install tensorboard; tensorboard --logdir runs/NAME); "
        "wandb and mlflow once they are installed; none: no tracker",
    )
    list_samples: bool | Literal["only"] = Setting(
        False,
        on_resume="free",
        description="Whether samples and their problems are listed before training; only: list "
        "them and do not train",
    )
    skip_preflight: bool = Setting(
        False,
        on_resume="free",
        description="Whether to train without first checking that base, processor, adapter and "
        "data fit (vlm)",
    )

    @pydantic.model_validator(mode="before")
    @classmethod
    def _one_dictionary(cls, values: Any) -> Any:
        return with_shared_dictionary(values) if isinstance(values, Mapping) else values

    @pydantic.field_validator("report_to", mode="before")
    @classmethod
    def _one_tracker(cls, value: Any) -> Any:
        """Accept one name as a list of one, and none as an empty list."""
        given = [value] if isinstance(value, str) else value
        return [] if given in (None, ["none"]) else given

    @pydantic.model_validator(mode="after")
    def _closed_decoding_has_entries(self) -> "TrainConfig":
        is_closed = self.family == "ctc" and self.decoding.method == "closed"
        if is_closed and not self.ctc.character_dict_path:
            raise ValueError(
                "decoding.method=closed reads one entry of a dictionary; "
                "name it in model.character_dict_path"
            )
        return self

    @pydantic.model_validator(mode="after")
    def _groups_are_the_familys(self) -> "TrainConfig":
        foreign = [
            group
            for group, family in FAMILY_GROUPS.items()
            if family != self.family
            and getattr(self, group) != type(self).model_fields[group].default
        ]
        if foreign:
            raise ValueError(
                f"{', '.join(foreign)}: without effect on model.kind={self.model.kind}; "
                "leave these settings out"
            )
        expected = "ctc" if self.family == "ctc" else "cross_entropy"
        if self.loss.name != expected:
            raise ValueError(
                f"loss.name={self.loss.name} does not fit model.kind={self.model.kind}; "
                f"set loss.name={expected}"
            )
        return self

    @pydantic.model_validator(mode="after")
    def _something_to_mix_in(self) -> "TrainConfig":
        if self.export.initial_share and self.family == "ctc" and not self.train.init_from:
            raise ValueError(
                "export.initial_share mixes in the weights of train.init_from; "
                "set train.init_from, or leave export.initial_share out"
            )
        return self

    @pydantic.model_validator(mode="after")
    def _engine_fits(self) -> "TrainConfig":
        if self.engine == "all_reduce" and self.deepspeed != DeepSpeedSettings():
            raise ValueError(
                "deepspeed: without effect on engine=all_reduce; "
                "set engine=deepspeed, or leave these settings out"
            )
        if self.engine == "deepspeed":
            base = self.vlm if self.family == "vlm" else None
            mistakes = list(contradictions(self.deepspeed, self.train, self.optimizer, base))
            mistakes += ["reduce: only with engine=all_reduce"] if self.reduce != "fp64" else []
            if mistakes:
                raise ValueError("\n  ".join(mistakes))
        return self

    @pydantic.model_validator(mode="after")
    def _gpus_for_the_device(self) -> "TrainConfig":
        gpus = self.resources_per_worker.get("GPU")
        if (self.device == "cuda" and gpus == 0) or (self.device == "cpu" and gpus):
            raise ValueError(
                f"device={self.device} contradicts resources_per_worker.GPU={gpus:g}; "
                "leave one of them out"
            )
        return self

    @pydantic.model_validator(mode="after")
    def _work_for_every_worker(self) -> "TrainConfig":
        if self.spreads_over_gpus and self.workers not in (1, "auto"):
            raise ValueError(
                "model.device_map=auto spreads one copy over all GPUs, "
                f"so workers must be 1, found {self.workers}"
            )
        self.require_work(self.train.micro_batches)
        return self

    @property
    def family(self) -> Family:
        """The kind of recogniser that is trained."""
        return "vlm" if isinstance(self.model, (VlmSettings, TinyVlmSettings)) else "ctc"

    @property
    def ctc(self) -> NetworkSettings:
        """The network of a CTC run."""
        assert not isinstance(self.model, (VlmSettings, TinyVlmSettings))
        return self.model

    @property
    def vlm(self) -> VlmSettings | TinyVlmSettings:
        """The base model of a vision-language run."""
        assert isinstance(self.model, (VlmSettings, TinyVlmSettings))
        return self.model

    @property
    def needs_gpu(self) -> bool:
        """Whether the run would take weeks on a CPU, and no setting asks for that."""
        return self.model.kind == "vlm" and self.device != "cpu"

    @property
    def spreads_over_gpus(self) -> bool:
        """Whether one worker holds one copy of the model on all GPUs of its machine."""
        return self.family == "vlm" and self.vlm.device_map is not None

    @property
    def zero_stage(self) -> int:
        """The ZeRO stage (`DeepSpeedSettings.stage`); 0 without DeepSpeed."""
        return self.deepspeed.stage if self.engine == "deepspeed" else 0


def config_of_run(file: Path, overrides: Sequence[str] = ()) -> TrainConfig:
    """Return the config that a run or a sweep wrote, with `overrides`.

    Settings that were renamed since are read under their old names.
    """
    written = stored_values(file)
    values = {TrainConfig.renamed.get(key, key): value for key, value in written.items()}
    return settings_from(TrainConfig, values, overrides, str(file))
