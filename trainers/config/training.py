"""Settings of the training loop, the optimizer, the loss and the augmentation of lines."""

from typing import Any, Literal

import pydantic

from ocr.settings import PathText, Setting, Settings
from trainers.config.metrics import Metric


class LoopSettings(Settings):
    """The run's length, its batch sizes, and when to save, evaluate and stop."""

    max_steps: int | None = Setting(
        None,
        ge=1,
        on_resume="free",
        description="Length in optimizer steps; raising it continues a finished run",
    )
    num_epochs: float | None = Setting(
        None, gt=0, on_resume="free", description="Length in epochs of the training split"
    )
    max_minutes: float | None = Setting(
        None,
        gt=0,
        on_resume="free",
        description="Length in minutes of training; turned into steps once, by the speed of the "
        "first steps",
    )
    global_batch_size: int = Setting(
        64, ge=1, on_resume="refuse", description="Samples per optimizer step, over all workers"
    )
    micro_batch_size: int = Setting(
        32, ge=1, on_resume="refuse", description="Samples per forward pass"
    )
    save_steps: int = Setting(
        200, ge=1, on_resume="free", description="Optimizer steps between checkpoints"
    )
    eval_steps: int = Setting(
        200, ge=1, on_resume="refuse", description="Optimizer steps between evaluations"
    )
    save_epochs: int | None = Setting(
        None,
        ge=1,
        on_resume="free",
        description="Epochs between checkpoints; overrides save_steps",
    )
    eval_epochs: int | None = Setting(
        None,
        ge=1,
        on_resume="refuse",
        description="Epochs between evaluations; overrides eval_steps",
    )
    logging_steps: int = Setting(
        20, ge=1, on_resume="refuse", description="Optimizer steps between lines of metrics.jsonl"
    )
    save_total_limit: int = Setting(
        2,
        ge=1,
        on_resume="free",
        description="Number of newest checkpoints that are kept, besides the best one",
    )
    seed: int = Setting(42, ge=0, on_resume="refuse", description="Key of every random number")
    init_from: PathText | None = Setting(
        None,
        on_resume="refuse",
        description="Weights that a new run starts from: a bundle, a run, a checkpoint, or a "
        "recogniser that ships, such as odia",
    )
    init_alphabet: Literal["union", "new", "fail"] = Setting(
        "union",
        on_resume="refuse",
        description="Characters with init_from. union: its own and those of the data; new: only "
        "those of the data; fail: its own, and an error where the data has others",
    )
    resume_from: PathText | None = Setting(
        None,
        on_resume="free",
        description="Checkpoint of the run to go back to (a path, or latest); later ones move to "
        "abandoned/",
    )
    early_stopping_patience: int | None = Setting(
        None,
        ge=1,
        on_resume="free",
        description="Evaluations without a better one after which the run stops; null, or 0: never",
    )
    early_stopping_threshold: float = Setting(
        0.0,
        ge=0,
        on_resume="free",
        description="Least decrease of the metric that counts as better",
    )
    metric_for_best_model: Metric = Setting(
        "eval_cer",
        on_resume="free",
        description="Metric that the best checkpoint is lowest in",
    )
    eval_on_start: bool = Setting(
        False,
        on_resume="refuse",
        description="Whether the initial weights are evaluated too, as step 0",
    )
    compute_train_metrics: bool = Setting(
        False,
        on_resume="refuse",
        description="Whether metrics.jsonl has error rates of training batches, by likeliest "
        "tokens (vlm)",
    )
    log_samples: bool = Setting(
        False,
        on_resume="refuse",
        description="Whether samples.jsonl lists the sample ids of every step",
    )

    @pydantic.field_validator("early_stopping_patience", mode="before")
    @classmethod
    def _zero_is_never(cls, value: Any) -> Any:
        return None if value == 0 else value

    @pydantic.model_validator(mode="after")
    def _one_length(self) -> "LoopSettings":
        names = ("max_steps", "num_epochs", "max_minutes")
        given = [name for name in names if getattr(self, name) is not None]
        if len(given) != 1:
            remedy = f"; set train.{given[-1]}=null, or another of them" if given else ""
            raise ValueError(
                "exactly one of max_steps, num_epochs and max_minutes is needed, "
                f"found {', '.join(given) or 'none'}{remedy}"
            )
        return self

    @property
    def micro_batches(self) -> int:
        """The number of micro-batches of a step; the last one of an epoch may have fewer."""
        return -(-self.global_batch_size // self.micro_batch_size)


class OptimizerSettings(Settings):
    """The optimizer and its learning rate over time."""

    name: Literal["adamw", "adam", "adamw_8bit", "paged_adamw_8bit", "paged_adamw_32bit"] = Setting(
        "adamw",
        on_resume="refuse",
        description="Optimizer: torch.optim.AdamW or Adam; or AdamW of bitsandbytes with 8-bit "
        "states, or with states that may be paged out of the GPU",
    )
    learning_rate: float = Setting(
        3e-3, gt=0, on_resume="refuse", description="Highest learning rate, after warm-up"
    )
    weight_decay: float = Setting(
        0.01,
        ge=0,
        on_resume="refuse",
        description="Weight decay of matrices and kernels; biases and norms have none",
    )
    betas: tuple[float, float] = Setting(
        (0.9, 0.999), on_resume="refuse", description="Decay of Adam's two running means"
    )
    head_weight_decay: float | None = Setting(
        None,
        ge=0,
        on_resume="refuse",
        description="Weight decay of the layers that give the classes; null: weight_decay",
    )
    warmup_steps: int = Setting(
        100,
        ge=0,
        on_resume="refuse",
        description="Optimizer steps from a learning rate of zero to the highest",
    )
    warmup_epochs: float | None = Setting(
        None,
        ge=0,
        on_resume="refuse",
        description="Epochs from a learning rate of zero to the highest; overrides warmup_steps",
    )
    lr_scheduler_type: Literal["constant", "linear", "cosine", "one_cycle"] = Setting(
        "cosine", on_resume="refuse", description="Course of the learning rate after warm-up"
    )
    max_grad_norm: float = Setting(
        5.0, gt=0, on_resume="refuse", description="Norm that larger gradients are scaled down to"
    )


class LossSettings(Settings):
    """The loss that training minimises."""

    name: Literal["ctc", "cross_entropy"] = Setting(
        "ctc",
        on_resume="refuse",
        description="Loss. ctc: connectionist temporal classification (Graves et al. 2006); "
        "cross_entropy: of each token, for vision-language models",
    )
    focal_gamma: float = Setting(
        0.0,
        ge=0,
        le=10,
        on_resume="refuse",
        description="Exponent of the focal loss: how much less samples, or tokens, that are "
        "already read well count; 0: all alike",
    )
    focal_alpha: float = Setting(
        1.0,
        gt=0,
        le=10,
        on_resume="refuse",
        description="Factor of the focal loss; without effect at focal_gamma 0",
    )
    label_smoothing: float = Setting(
        0.0,
        ge=0,
        lt=1,
        on_resume="refuse",
        description="Share of the loss that asks for a uniform distribution in every column, or "
        "token",
    )
    confusion_weight: float = Setting(
        0.0,
        ge=0,
        le=100,
        on_resume="refuse",
        description="Extra weight of tokens that are often misread (cross_entropy): a token counts "
        "1 + this × (its error rate − the mean one)",
    )
    confusion_max: float = Setting(
        4.0,
        ge=1,
        le=100,
        on_resume="refuse",
        description="Largest weight of a token; its inverse is the smallest",
    )
    confusion_decay: float = Setting(
        0.99,
        gt=0,
        lt=1,
        on_resume="refuse",
        description="Share of the running error rates that remains from step to step",
    )


class AugmentSettings(Settings):
    """Augmentation of training lines; each random number is keyed by (seed, epoch, sample id)."""

    strength: float = Setting(
        1.0,
        ge=0,
        le=2,
        on_resume="refuse",
        description="Factor of every range of this group; 0 leaves images unchanged",
    )
    rotation_degrees: float = Setting(
        2.0, ge=0, le=15, on_resume="refuse", description="Largest rotation either way, in degrees"
    )
    shear: float = Setting(
        0.2,
        ge=0,
        le=1,
        on_resume="refuse",
        description="Largest slant either way, in columns per row",
    )
    squeeze: float = Setting(
        0.15,
        ge=0,
        lt=0.5,
        on_resume="refuse",
        description="Largest loss of width or height, as a share",
    )
    blur_px: float = Setting(
        1.2, ge=0, le=5, on_resume="refuse", description="Largest Gaussian radius, in pixels"
    )
    noise: float = Setting(
        0.12,
        ge=0,
        le=1,
        on_resume="refuse",
        description="Largest standard deviation of noise, as a share of full contrast",
    )
    low_resolution: float = Setting(
        0.5,
        ge=0,
        lt=0.9,
        on_resume="refuse",
        description="Largest loss of resolution, as a share of the height",
    )
    stroke: float = Setting(
        0.3,
        ge=0,
        le=1,
        on_resume="refuse",
        description="Probability of strokes one pixel thinner or thicker",
    )
    invert: float = Setting(
        0.05, ge=0, le=1, on_resume="refuse", description="Probability of light text on dark"
    )
