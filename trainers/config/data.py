"""Settings of a run's data."""

from typing import Annotated

import pydantic

from ocr.dataset.config import DivisionSettings
from ocr.settings import Setting, Settings
from ocr.sources.settings import Source

DataSource = Annotated[
    Annotated[str, pydantic.Tag("folder")] | Annotated[tuple[Source, ...], pydantic.Tag("sources")],
    pydantic.Discriminator(
        lambda value: "sources" if isinstance(value, (list, tuple)) else "folder"
    ),
]


class DataSettings(Settings):
    """The data sets for training and for validation."""

    train: DataSource = Setting(
        on_resume="refuse",
        description="Training data: the folder of a prepared data set (a path or s3://…), the name "
        "of the embedded one, odia_words, or sources as prepare.py takes them",
    )
    validation: DataSource | None = Setting(
        None,
        on_resume="refuse",
        description="Data set whose validation split is evaluated, or sources that are all "
        "evaluated; null: the validation split of `train`",
    )
    validation_ratio: float = Setting(
        0.1,
        ge=0,
        lt=1,
        on_resume="refuse",
        description="Share of samples for validation, of sources in `train` with split=auto",
    )
    split: DivisionSettings = Setting(
        DivisionSettings(), on_resume="refuse", description="Division of sources into splits"
    )
    min_samples: int = Setting(
        1,
        ge=1,
        on_resume="refuse",
        description="Least number of usable samples, both splits together; with fewer the run "
        "refuses to start",
    )
    replay: DataSource | None = Setting(
        None,
        on_resume="refuse",
        description="Data that the weights of train.init_from were trained on; its training split "
        "is mixed in so that it is not forgotten",
    )
    replay_ratio: float = Setting(
        1.0,
        gt=0,
        le=100,
        on_resume="refuse",
        description="Samples of `replay` per training sample in each epoch, picked anew each time",
    )
    max_train_samples: int | None = Setting(
        None,
        ge=1,
        on_resume="refuse",
        description="Number of samples used, from the start of the training split; null: all",
    )
    max_validation_samples: int | None = Setting(
        None,
        ge=1,
        on_resume="refuse",
        description="Number of samples used, from the start of the validation split; null: all",
    )

    @pydantic.model_validator(mode="after")
    def _something_to_divide(self) -> "DataSettings":
        if isinstance(self.train, str) and self.split != DivisionSettings():
            raise ValueError(
                f"split: without effect on {self.train}, which is divided already; "
                "leave it out, or name sources in `train`"
            )
        return self
