"""Every setting of a training run; one YAML file is one `TrainConfig`. No torch, no ray here."""

from pathlib import Path
from typing import Annotated, Literal

import pydantic

from ocr.recognizers.ctc.settings import DecodingSettings, NetworkSettings
from ocr.recognizers.vlm.settings import (
    GenerationSettings,
    ImageSettings,
    LoraSettings,
    TinyVlmSettings,
    VlmSettings,
)
from ocr.settings import Setting, Settings
from ocr.sources.settings import Source
from trainers.config.deepspeed import DeepSpeedSettings, contradictions
from trainers.config.kornia import KorniaSettings

Family = Literal["ctc", "vlm"]
_GROUPS_OF: dict[str, Family] = {
    "decoding": "ctc",
    "augment": "ctc",
    "lora": "vlm",
    "images": "vlm",
    "generation": "vlm",
    "kornia": "vlm",
}

DataSource = Annotated[
    Annotated[str, pydantic.Tag("folder")] | Annotated[tuple[Source, ...], pydantic.Tag("sources")],
    pydantic.Discriminator(
        lambda value: "sources" if isinstance(value, (list, tuple)) else "folder"
    ),
]


class DataSettings(Settings):
    """Which data set trains and which one judges."""

    train: DataSource = Setting(
        on_resume="refuse",
        description="a prepared data set's folder (a path or s3://…), the embedded one's name, odia_words, or sources as prepare.py takes them",
    )
    validation: DataSource | None = Setting(
        None,
        on_resume="refuse",
        description="another data set whose validation split judges, or sources that all do; null: the validation split of `train`",
    )
    validation_ratio: float = Setting(
        0.1,
        ge=0,
        lt=1,
        on_resume="refuse",
        description="share that judges, of sources in `train` that do not say",
    )
    min_samples: int = Setting(
        1,
        ge=1,
        on_resume="refuse",
        description="fewer usable samples than this, both splits together, and the run refuses",
    )
    replay: DataSource | None = Setting(
        None,
        on_resume="refuse",
        description="data that the weights of train.init_from know already, whose training split is mixed in so that it is not forgotten",
    )
    replay_ratio: float = Setting(
        1.0,
        gt=0,
        le=100,
        on_resume="refuse",
        description="samples of `replay` in each pass, drawn anew, for each training sample",
    )
    max_train_samples: int | None = Setting(
        None,
        ge=1,
        on_resume="refuse",
        description="use only the first so many samples of the training split",
    )
    max_validation_samples: int | None = Setting(
        None,
        ge=1,
        on_resume="refuse",
        description="use only the first so many samples of the validation split",
    )


class LoopSettings(Settings):
    """How long, how much at once, and when to save, judge and stop."""

    max_steps: int | None = Setting(
        None,
        ge=1,
        on_resume="free",
        description="length in optimizer steps; raising it continues a finished run",
    )
    num_epochs: float | None = Setting(
        None, gt=0, on_resume="free", description="length in passes over the training split"
    )
    max_minutes: float | None = Setting(
        None,
        gt=0,
        on_resume="free",
        description="length in minutes of training, turned into steps once, from the first steps' speed",
    )
    global_batch_size: int = Setting(
        64, ge=1, on_resume="refuse", description="samples per optimizer step, all workers together"
    )
    micro_batch_size: int = Setting(
        32, ge=1, on_resume="refuse", description="samples per forward pass"
    )
    save_steps: int = Setting(
        200, ge=1, on_resume="free", description="optimizer steps between checkpoints"
    )
    eval_steps: int = Setting(
        200, ge=1, on_resume="refuse", description="optimizer steps between evaluations"
    )
    save_epochs: int | None = Setting(
        None,
        ge=1,
        on_resume="free",
        description="passes between checkpoints, in place of save_steps",
    )
    eval_epochs: int | None = Setting(
        None,
        ge=1,
        on_resume="refuse",
        description="passes between evaluations, in place of eval_steps",
    )
    logging_steps: int = Setting(
        20, ge=1, on_resume="refuse", description="optimizer steps between lines of metrics.jsonl"
    )
    save_total_limit: int = Setting(
        2,
        ge=1,
        on_resume="free",
        description="how many of the newest checkpoints stay; the best one stays besides",
    )
    seed: int = Setting(42, ge=0, on_resume="refuse", description="key of every random draw")
    init_from: str | None = Setting(
        None,
        on_resume="refuse",
        description="whose weights a new run starts from: a bundle, a run with one, or a recogniser that ships, such as odia",
    )
    init_alphabet: Literal["union", "new", "fail"] = Setting(
        "union",
        on_resume="refuse",
        description="characters after init_from: its own and those of the data; only the data's; or its own, and an error where the data has others",
    )
    resume_from: str | None = Setting(
        None,
        on_resume="free",
        description="go back to this checkpoint of the run (a path, or latest); later ones move to abandoned/",
    )
    early_stopping_patience: int | None = Setting(
        None,
        ge=1,
        on_resume="free",
        description="stop after so many evaluations without a better one",
    )
    early_stopping_threshold: float = Setting(
        0.0,
        ge=0,
        on_resume="free",
        description="how much lower the metric must be to count as better",
    )
    metric_for_best_model: Literal[
        "eval_cer", "eval_grapheme_cer", "eval_wer", "eval_loss", "eval_cer_teacher_forced"
    ] = Setting("eval_cer", on_resume="free", description="the lower the better")
    eval_on_start: bool = Setting(
        False,
        on_resume="refuse",
        description="judge the weights that training starts from too, as step 0",
    )
    compute_train_metrics: bool = Setting(
        False,
        on_resume="refuse",
        description="error rates of training batches in metrics.jsonl, by likeliest tokens (vlm)",
    )
    log_samples: bool = Setting(
        False, on_resume="refuse", description="write samples.jsonl, the ids of every step"
    )

    @pydantic.model_validator(mode="after")
    def _one_length(self) -> "LoopSettings":
        given = [
            name
            for name in ("max_steps", "num_epochs", "max_minutes")
            if getattr(self, name) is not None
        ]
        if len(given) != 1:
            raise ValueError(
                f"exactly one of max_steps, num_epochs and max_minutes is needed, found {', '.join(given) or 'none'}"
            )
        return self


class OptimizerSettings(Settings):
    """The optimizer and its learning rate over time."""

    name: Literal["adamw", "adam", "adamw_8bit", "paged_adamw_8bit", "paged_adamw_32bit"] = Setting(
        "adamw",
        on_resume="refuse",
        description="torch.optim.AdamW or Adam; or of bitsandbytes with 8-bit states, or states that may leave the GPU",
    )
    learning_rate: float = Setting(3e-3, gt=0, on_resume="refuse", description="the highest rate")
    weight_decay: float = Setting(
        0.01,
        ge=0,
        on_resume="refuse",
        description="on matrices and kernels; biases and norms are left alone",
    )
    betas: tuple[float, float] = Setting(
        (0.9, 0.999), on_resume="refuse", description="decay of the two running means"
    )
    head_weight_decay: float | None = Setting(
        None,
        ge=0,
        on_resume="refuse",
        description="on the layers that give the classes; null: weight_decay",
    )
    warmup_steps: int = Setting(
        100, ge=0, on_resume="refuse", description="optimizer steps from zero to the full rate"
    )
    warmup_epochs: float | None = Setting(
        None,
        ge=0,
        on_resume="refuse",
        description="passes from zero to the full rate, in place of warmup_steps",
    )
    lr_scheduler_type: Literal["constant", "linear", "cosine", "one_cycle"] = Setting(
        "cosine", on_resume="refuse", description="the rate after warm-up"
    )
    max_grad_norm: float = Setting(
        5.0, gt=0, on_resume="refuse", description="gradients are scaled down to this norm"
    )


class LossSettings(Settings):
    """What is minimised."""

    name: Literal["ctc", "cross_entropy"] = Setting(
        "ctc",
        on_resume="refuse",
        description="connectionist temporal classification (Graves et al. 2006), or each token's cross entropy for vision-language models",
    )
    focal_gamma: float = Setting(
        0.0,
        ge=0,
        le=10,
        on_resume="refuse",
        description="how much samples, or tokens, that are read well already count less; 0: all alike",
    )
    focal_alpha: float = Setting(
        1.0,
        gt=0,
        le=10,
        on_resume="refuse",
        description="factor of the focal loss; without effect at focal_gamma 0",
    )
    label_smoothing: float = Setting(
        0.0,
        ge=0,
        lt=1,
        on_resume="refuse",
        description="share of the loss that asks for even odds in every column, or token",
    )
    confusion_weight: float = Setting(
        0.0,
        ge=0,
        le=100,
        on_resume="refuse",
        description="how much more tokens that are often misread count (cross_entropy): 1 + this × (error rate − mean one)",
    )
    confusion_max: float = Setting(
        4.0,
        ge=1,
        le=100,
        on_resume="refuse",
        description="largest weight of a token, its inverse the smallest",
    )
    confusion_decay: float = Setting(
        0.99,
        gt=0,
        lt=1,
        on_resume="refuse",
        description="how much of the running error rates stays from step to step",
    )


class AugmentSettings(Settings):
    """How training images are disturbed; each draw is keyed by (seed, epoch, sample id)."""

    strength: float = Setting(
        1.0,
        ge=0,
        le=2,
        on_resume="refuse",
        description="scales every range below; 0 leaves images as they are",
    )
    rotation_degrees: float = Setting(
        2.0, ge=0, le=15, on_resume="refuse", description="either way"
    )
    shear: float = Setting(
        0.2, ge=0, le=1, on_resume="refuse", description="slant, columns per row, either way"
    )
    squeeze: float = Setting(
        0.15, ge=0, lt=0.5, on_resume="refuse", description="how much narrower or lower, as a share"
    )
    blur_px: float = Setting(
        1.2, ge=0, le=5, on_resume="refuse", description="largest Gaussian radius"
    )
    noise: float = Setting(
        0.12,
        ge=0,
        le=1,
        on_resume="refuse",
        description="largest standard deviation, as a share of full contrast",
    )
    low_resolution: float = Setting(
        0.5,
        ge=0,
        lt=0.9,
        on_resume="refuse",
        description="largest loss of resolution, as a share of the height",
    )
    stroke: float = Setting(
        0.3,
        ge=0,
        le=1,
        on_resume="refuse",
        description="chance of strokes one pixel thinner or thicker",
    )
    invert: float = Setting(
        0.05, ge=0, le=1, on_resume="refuse", description="chance of light text on dark"
    )


class ExportSettings(Settings):
    """What the bundle at the end of a run holds."""

    backends: tuple[Literal["torch", "onnx-fp32", "onnx-int8"], ...] = Setting(
        ("torch",),
        on_resume="free",
        description="each read with before the bundle is written; onnx-int8 is the fastest on a CPU",
        min_length=1,
    )
    quantization: Literal["nf4", "int8"] | None = Setting(
        None,
        on_resume="free",
        description="read the bundle with the base's matrices quantised by bitsandbytes; its CER stands in the card (vlm)",
    )
    merged_dtype: Literal["bfloat16", "float16", "float32"] = Setting(
        "bfloat16", on_resume="free", description="of a merged model's weights (vlm)"
    )
    llama_cpp: str | None = Setting(
        None,
        on_resume="free",
        description="folder of a llama.cpp checkout, whose converter writes GGUF files (vlm)",
    )
    initial_share: float = Setting(
        0.0,
        ge=0,
        lt=1,
        on_resume="free",
        description="how much of the weights of train.init_from is mixed into the bundle's (ctc): it forgets less (WiSE-FT)",
    )
    half_weights: bool = Setting(
        False, on_resume="free", description="weights.safetensors in fp16: half the size"
    )
    calibration_images: int = Setting(
        256, ge=1, on_resume="free", description="training images that the ranges of int8 come from"
    )
    max_cer_difference: float = Setting(
        0.003,
        ge=0,
        le=1,
        on_resume="free",
        description="how far a backend's CER may lie from the trained network's; beyond it nothing is exported",
    )
    max_confidence_difference: float = Setting(
        0.03,
        ge=0,
        le=1,
        on_resume="free",
        description="how far the confidences of samples may lie from the trained network's in the mean (vlm)",
    )


class TrainConfig(Settings):
    """One run: everything that makes its weights, and where it lives."""

    run_name: str = Setting(
        on_resume="free",
        pattern=r"^[A-Za-z0-9]([A-Za-z0-9._-]|\{data\})*$",
        description="name of the run's folder under storage_path; {data} becomes a hash of the data, so that other data makes another run beside it",
    )
    storage_path: str = Setting(
        "runs",
        min_length=1,
        on_resume="free",
        description="folder of runs; LIPI_STORAGE, where set, holds relative ones",
    )
    data: DataSettings = Setting(on_resume="refuse", description="data sets")
    train: LoopSettings = Setting(on_resume="refuse", description="the loop")
    optimizer: OptimizerSettings = Setting(
        OptimizerSettings(), on_resume="refuse", description="the optimizer"
    )
    model: NetworkSettings | VlmSettings | TinyVlmSettings = Setting(
        on_resume="refuse", description="the network", discriminator="kind"
    )
    lora: LoraSettings = Setting(
        LoraSettings(), on_resume="refuse", description="the adapter (vlm)"
    )
    images: ImageSettings = Setting(
        ImageSettings(), on_resume="refuse", description="sizes of images (vlm)"
    )
    loss: LossSettings = Setting(LossSettings(), on_resume="refuse", description="the loss")
    augment: AugmentSettings = Setting(
        AugmentSettings(), on_resume="refuse", description="augmentation of lines (ctc)"
    )
    kornia: KorniaSettings = Setting(
        KorniaSettings(), on_resume="refuse", description="augmentation on the model's device (vlm)"
    )
    decoding: DecodingSettings = Setting(
        DecodingSettings(),
        on_resume="free",
        description="how the bundle turns probabilities into text (ctc)",
    )
    generation: GenerationSettings = Setting(
        GenerationSettings(), on_resume="free", description="how text is generated (vlm)"
    )
    export: ExportSettings = Setting(ExportSettings(), on_resume="free", description="the bundle")
    max_skipped: float = Setting(
        0.01,
        ge=0,
        le=1,
        on_resume="refuse",
        description="share of samples that may be left out, each with a reason, before the run refuses",
    )
    precision: Literal["auto", "fp32", "bf16", "fp16"] = Setting(
        "auto",
        on_resume="rounding",
        description="autocast, with a loss scale in fp16; auto: bf16 on GPUs that compute it natively, else fp32",
    )
    device: Literal["auto", "cpu", "cuda"] = Setting(
        "auto", on_resume="rounding", description="auto: GPUs where Ray has them"
    )
    deterministic: bool = Setting(
        True, on_resume="rounding", description="deterministic kernels on GPUs"
    )
    engine: Literal["all_reduce", "deepspeed"] = Setting(
        "all_reduce",
        on_resume="rounding",
        description="how gradients meet: every worker holds everything, or parts, as `deepspeed` says",
    )
    deepspeed: DeepSpeedSettings = Setting(
        DeepSpeedSettings(),
        on_resume="rounding",
        description="what is divided among workers (engine=deepspeed)",
    )
    workers: int = Setting(1, ge=1, on_resume="rounding", description="Ray Train workers")
    threads_per_worker: int | None = Setting(
        None,
        ge=1,
        on_resume="rounding",
        description="torch threads of each worker; null: its share of the cores",
    )
    max_failures: int = Setting(
        3,
        ge=0,
        on_resume="free",
        description="how many deaths of workers or of Ray are survived before the run gives up",
    )

    report_to: tuple[Literal["tensorboard", "wandb", "mlflow"], ...] = Setting(
        (),
        on_resume="free",
        description="where the lines of metrics.jsonl are sent too: tensorboard into the run's folder; wandb and mlflow once they are installed",
    )

    verify: bool | Literal["only"] = Setting(
        False,
        on_resume="free",
        description="list the samples and what is wrong with them before training, or only list them",
    )

    skip_verification: bool = Setting(
        False,
        on_resume="free",
        description="train without looking first whether base, processor, adapter and data fit (vlm)",
    )

    @pydantic.model_validator(mode="after")
    def _closed_decoding_has_entries(self) -> "TrainConfig":
        if (
            self.family == "ctc"
            and self.decoding.method == "closed"
            and not self.ctc.character_dict_path
        ):
            raise ValueError(
                "decoding.method=closed reads one entry of a dictionary; name it in model.character_dict_path"
            )
        return self

    @pydantic.model_validator(mode="after")
    def _groups_are_the_familys(self) -> "TrainConfig":
        foreign = [
            group
            for group, family in _GROUPS_OF.items()
            if family != self.family
            and getattr(self, group) != type(self).model_fields[group].default
        ]
        if foreign:
            raise ValueError(
                f"{', '.join(foreign)}: without effect on model.kind={self.model.kind}; leave these settings out"
            )
        if (self.loss.name == "ctc") != (self.family == "ctc"):
            raise ValueError(
                f"loss.name={self.loss.name} does not fit model.kind={self.model.kind}; set loss.name={'ctc' if self.family == 'ctc' else 'cross_entropy'}"
            )
        return self

    @pydantic.model_validator(mode="after")
    def _something_to_mix_in(self) -> "TrainConfig":
        if self.export.initial_share and (self.family != "ctc" or not self.train.init_from):
            raise ValueError(
                "export.initial_share mixes in the weights of train.init_from, for CTC networks; set train.init_from, or leave it out"
            )
        return self

    @pydantic.model_validator(mode="after")
    def _engine_fits(self) -> "TrainConfig":
        if self.engine == "all_reduce" and self.deepspeed != DeepSpeedSettings():
            raise ValueError(
                "deepspeed: without effect on engine=all_reduce; set engine=deepspeed, or leave these settings out"
            )
        if self.engine == "deepspeed" and (mistakes := list(contradictions(self))):
            raise ValueError("\n  ".join(mistakes))
        return self

    @pydantic.model_validator(mode="after")
    def _one_worker_for_a_device_map(self) -> "TrainConfig":
        if self.family == "vlm" and self.vlm.device_map and self.workers > 1:
            raise ValueError(
                f"model.device_map=auto spreads one copy over all GPUs, so workers must be 1, found {self.workers}"
            )
        return self

    @property
    def family(self) -> Family:
        """Which kind of recogniser is trained."""
        return "vlm" if isinstance(self.model, (VlmSettings, TinyVlmSettings)) else "ctc"

    @property
    def ctc(self) -> NetworkSettings:
        """The network of a CTC run."""
        assert not isinstance(self.model, (VlmSettings, TinyVlmSettings))
        return self.model

    @property
    def vlm(self) -> VlmSettings | TinyVlmSettings:
        """The base of a vision-language run."""
        assert isinstance(self.model, (VlmSettings, TinyVlmSettings))
        return self.model

    @property
    def zero_stage(self) -> int:
        """What DeepSpeed divides (`DeepSpeedSettings.stage`); 0 where it does not train."""
        return self.deepspeed.stage if self.engine == "deepspeed" else 0

    @property
    def local_run_dir(self) -> Path:
        """`storage_path/run_name` as written, before it is made absolute."""
        return Path(self.storage_path) / self.run_name
