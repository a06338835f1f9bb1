"""Settings of a run's data."""

from collections.abc import Mapping
from typing import Annotated, Any

import pydantic

from ocr.dataset.config import DivisionSettings
from ocr.settings import PathText, Setting, Settings
from ocr.sources.settings import Source

DataSource = Annotated[
    Annotated[PathText, pydantic.Tag("folder")]
    | Annotated[tuple[Source, ...], pydantic.Tag("sources")],
    pydantic.Discriminator(
        lambda value: "sources" if isinstance(value, (list, tuple)) else "folder"
    ),
]
_SPLITS = ("train", "validation", "replay")
_OF_MODEL = ("character_dict_path", "use_space_char")
_SHARED = (*_OF_MODEL, "max_text_length")


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

    character_dict_path: PathText | None = Setting(
        None,
        on_resume="free",
        description="PaddleOCR dictionary file of the network and of every source of the format "
        "paddle that names none; a run is compared by what this fills in",
    )
    use_space_char: bool | None = Setting(
        None,
        on_resume="free",
        description="Whether the space is an entry of the dictionary, likewise for the network and "
        "all sources of the format paddle",
    )
    max_text_length: int | None = Setting(
        None,
        ge=1,
        on_resume="free",
        description="Longest label, likewise for all sources of the format paddle",
    )

    @pydantic.model_validator(mode="after")
    def _something_to_divide(self) -> "DataSettings":
        if isinstance(self.train, str) and self.split != DivisionSettings():
            raise ValueError(
                f"split: without effect on {self.train}, which is divided already; "
                "leave it out, or name sources in `train`"
            )
        return self


def with_shared_dictionary(values: Mapping[str, Any]) -> dict[str, Any]:
    """Return a run's plain values with what `data` says of the dictionary filled in.

    It goes to the CTC network and to sources of the format paddle, where they do not say it
    themselves.
    """
    data, model = values.get("data"), values.get("model")
    given = data if isinstance(data, Mapping) else {}
    shared = {key: given[key] for key in _SHARED if given.get(key) is not None}
    if not shared:
        return dict(values)
    changed = {key: _with_defaults_of_paddle(given.get(key), shared) for key in _SPLITS}
    result = {**values, "data": {**given, **{key: new for key, new in changed.items() if new}}}
    if isinstance(model, Mapping) and "vlm" not in str(model.get("kind")):
        result["model"] = _filled(model, {key: shared[key] for key in shared if key in _OF_MODEL})
    return result


def _with_defaults_of_paddle(sources: Any, defaults: Mapping[str, Any]) -> Any:
    """Return a list of sources with the defaults filled in; anything else as it is."""
    if not isinstance(sources, (list, tuple)):
        return sources
    return [
        _filled(source, defaults)
        if isinstance(source, Mapping) and source.get("format") == "paddle"
        else source
        for source in sources
    ]


def _filled(group: Mapping[str, Any], defaults: Mapping[str, Any]) -> dict[str, Any]:
    return {**defaults, **{key: value for key, value in group.items() if value is not None}}
