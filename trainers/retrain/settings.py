"""Settings of `ray_jobs/retrain.py`. No torch, no ray here."""

from ocr.settings import Setting, Settings


class RetrainConfig(Settings):
    """One retraining: which recogniser, which corrections, how long, and what counts as better."""

    bundle: str = Setting(
        min_length=1,
        on_resume="refuse",
        description="the recogniser to train further: a bundle's folder, or one that ships: odia, bangla, thai",
    )
    corrections: str = Setting(
        min_length=1,
        on_resume="refuse",
        description="folder of corrections: x.png with x.json, as docs/formats.md describes them",
    )
    storage_path: str = Setting(
        "runs",
        min_length=1,
        on_resume="free",
        description="folder under which `output` lies; LIPI_STORAGE, where set, holds relative ones",
    )
    output: str | None = Setting(
        None,
        on_resume="free",
        description="folder of this retraining; null: retrain-NAME-HASH, so that the same command goes on",
    )
    replay: str | None = Setting(
        None,
        on_resume="refuse",
        description="data set whose training split is mixed in and whose validation split judges; null: the bundle's own",
    )
    num_epochs: float | None = Setting(
        None,
        gt=0,
        le=1000,
        on_resume="refuse",
        description="passes over corrections and replay; null: max_steps",
    )
    max_steps: int = Setting(
        150,
        ge=1,
        le=100_000,
        on_resume="refuse",
        description="optimizer steps, where num_epochs is not given",
    )
    global_batch_size: int = Setting(
        16, ge=1, le=512, on_resume="refuse", description="samples per optimizer step"
    )
    learning_rate: float = Setting(
        1e-3, gt=0, le=0.1, on_resume="refuse", description="the highest rate"
    )
    replay_ratio: float = Setting(
        3.0,
        gt=0,
        le=100,
        on_resume="refuse",
        description="replayed samples in each pass, for each correction",
    )
    augment: float = Setting(
        0.3,
        ge=0,
        le=2,
        on_resume="refuse",
        description="how much training images are disturbed (augment.strength)",
    )
    initial_share: float = Setting(
        0.3,
        ge=0,
        lt=1,
        on_resume="refuse",
        description="how much of the weights it starts from stays in the candidate (WiSE-FT)",
    )
    min_samples: int = Setting(
        10, ge=5, on_resume="free", description="fewer corrections than this are not trained on"
    )
    max_skipped: float = Setting(
        0.01,
        ge=0,
        le=1,
        on_resume="free",
        description="largest share of corrections that may be skipped as faulty",
    )
    folds: int = Setting(
        5,
        ge=2,
        le=10,
        on_resume="refuse",
        description="parts of the corrections; one is held out, or where there are few each in turn",
    )
    least_held_out: int = Setting(
        50,
        ge=1,
        on_resume="refuse",
        description="held-out lines from which on an interval decides; with fewer, the folds' errors in total",
    )
    max_loss: float = Setting(
        0.005,
        ge=0,
        on_resume="free",
        description="how much higher the CER on the base's validation data may be (upper end of its interval)",
    )
    seed: int = Setting(42, ge=0, on_resume="refuse", description="key of every random draw")
    save_steps: int = Setting(
        50, ge=1, on_resume="free", description="optimizer steps between checkpoints"
    )
    workers: int = Setting(1, ge=1, on_resume="free", description="Ray Train workers")
    threads_per_worker: int = Setting(
        1, ge=1, on_resume="free", description="torch threads of each worker"
    )
