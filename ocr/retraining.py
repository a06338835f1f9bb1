"""The contract of a retraining, for `trainers/retrain/`, `serve/retraining.py` and the web page.

Settings, the words of a verdict, the files that a retraining writes. No torch, no ray here.
"""

from typing import Literal

from ocr.settings import PathText, Setting, Settings

BETTER, UNSURE, REFUSED = "better", "too few to be sure", "refused"
VERDICT_FILE, PROGRESS_FILE = "verdict.json", "progress.json"
FIRST = "first.json"  # in a bundle: what the first model of its chain read
USER_MISTAKE = 2  # exit status of `ray_jobs/retrain.py`: trying again would not help
CLUSTER_AWAY = 75  # its exit status where no Ray answers, which may pass (EX_TEMPFAIL)
MIN_CORRECTIONS = 10
MAX_EPOCHS, MAX_BATCH_SIZE, MAX_LEARNING_RATE = 1000, 512, 0.1


class GateSettings(Settings):
    """What a candidate may lose, against the live model and against the first of its chain."""

    max_forgetting: float = Setting(
        0.005,
        ge=0,
        le=1,
        on_resume="free",
        description=(
            "Largest rise of CER on the first model's validation data (upper end of the interval), "
            "over all retrainings since; 1 where all documents are of one new kind"
        ),
    )


class RetrainConfig(Settings):
    """One retraining: which recogniser, which corrections, how long, and what counts as better."""

    bundle: PathText = Setting(
        min_length=1,
        on_resume="refuse",
        description="Recogniser to train further: a bundle's folder or address, or odia, bangla "
        "or thai",
    )
    corrections: PathText = Setting(
        min_length=1,
        on_resume="refuse",
        description="Folder of corrections, x.png with x.json (docs/formats.md), also in a bucket",
    )
    storage_path: PathText = Setting(
        "runs",
        min_length=1,
        on_resume="free",
        description=(
            "Folder that holds `output`, or an s3:// or gs:// address; relative ones lie under "
            "LIPI_STORAGE where it is set"
        ),
    )
    output: PathText | None = Setting(
        None,
        on_resume="free",
        description=(
            "Folder of this retraining; null: retrain-NAME-HASH, so the same command resumes"
        ),
    )
    replay: PathText | None = Setting(
        None,
        on_resume="refuse",
        description="Data set to replay and to validate with; null: the samples in the bundle",
    )
    num_epochs: float | None = Setting(
        None,
        gt=0,
        le=MAX_EPOCHS,
        on_resume="refuse",
        description="Epochs over corrections and replayed samples; null: max_steps decides",
    )
    max_steps: int = Setting(
        150,
        ge=1,
        le=100_000,
        on_resume="refuse",
        description="Optimizer steps where num_epochs is null",
    )
    global_batch_size: int = Setting(
        16, ge=1, le=MAX_BATCH_SIZE, on_resume="refuse", description="Samples per optimizer step"
    )
    micro_batch_size: int | None = Setting(
        None,
        ge=1,
        on_resume="refuse",
        description="Samples per forward pass; null: 16, of a vision-language model 1",
    )
    learning_rate: float | None = Setting(
        None,
        gt=0,
        le=MAX_LEARNING_RATE,
        on_resume="refuse",
        description="Highest learning rate; null: 0.001, of a vision-language model 0.0001",
    )
    replay_ratio: float = Setting(
        3.0,
        gt=0,
        le=100,
        on_resume="refuse",
        description="Replayed samples per correction in each epoch",
    )
    augment: float = Setting(
        0.3,
        ge=0,
        le=2,
        on_resume="refuse",
        description=(
            "Strength of the augmentation of training images (augment.strength, of a "
            "vision-language model kornia.strength)"
        ),
    )
    initial_share: float = Setting(
        0.3,
        ge=0,
        lt=1,
        on_resume="refuse",
        description=(
            "Share of the initial weights in the candidate's, of a vision-language model those of "
            "its adapter (Wortsman et al. 2022, WiSE-FT)"
        ),
    )
    min_samples: int = Setting(
        MIN_CORRECTIONS, ge=5, on_resume="free", description="Fewest corrections to train on"
    )
    max_skipped: float = Setting(
        0.01,
        ge=0,
        le=1,
        on_resume="free",
        description="Largest share of corrections that may be skipped as faulty",
    )
    folds: int = Setting(
        5,
        ge=2,
        le=10,
        on_resume="refuse",
        description=(
            "Parts of the corrections; one is held out, or each in turn where there are few"
        ),
    )
    least_held_out: int = Setting(
        50,
        ge=1,
        on_resume="refuse",
        description=(
            "Held-out lines needed to decide by an interval; with fewer, by all folds' errors"
        ),
    )
    gate: GateSettings = Setting(
        GateSettings(), on_resume="free", description="Conditions for the candidate"
    )
    seed: int = Setting(42, ge=0, on_resume="refuse", description="Seed of every random draw")
    save_steps: int = Setting(
        50, ge=1, on_resume="free", description="Optimizer steps between checkpoints"
    )
    workers: int = Setting(1, ge=1, on_resume="free", description="Ray Train workers")
    threads_per_worker: int = Setting(
        1, ge=1, on_resume="free", description="Torch threads of each worker"
    )
    device: Literal["auto", "cpu", "cuda"] = Setting(
        "auto", on_resume="free", description="Device; auto: GPUs where Ray has them, else CPU"
    )
