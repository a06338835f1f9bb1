"""Put samples to replay into a bundle, from the data that the bundle was trained on.

A prepared data set:
    python -m trainers.retrain.add_replay runs/odia-ctc/bundle data/my_lines
The config of its run, whose sources are rendered anew, as few and as small as a repository likes:
    python -m trainers.retrain.add_replay ocr/assets/recognisers/thai configs/bases/thai.yaml
"""

import sys
from collections.abc import Sequence
from pathlib import Path

from ocr.bundle import open_bundle
from ocr.dataset.prepared import open_splits
from ocr.errors import UserError
from ocr.replay import MOST, TRAIN, VALIDATION, few, replay_files, with_replay
from ocr.settings import load_settings
from ocr.sources.settings import SourceSettings, SyntheticSettings
from trainers.config import TrainConfig

# share of rendered samples: a face that is held out may lack Latin, digits and punctuation
_MAX_SKIPPED = 0.5
_HIGHEST_PX = 52  # of a rendered line: a network's height and a little, for small files
_MOST_RENDERED = {TRAIN: 500, VALIDATION: 300}  # lines are ten times as wide as words


def files_of(config: TrainConfig) -> dict[str, bytes]:
    """Return the two files for a bundle, from a config's sources or the data set that it names."""
    if isinstance(config.data.train, str):
        return replay_files(config.data.train)
    sources = _fewer(config.data.train, "train", _MOST_RENDERED[TRAIN])
    sources = _fewer(sources, "validation", _MOST_RENDERED[VALIDATION])
    train, validation = open_splits(
        sources, None, config.data.validation_ratio, _MAX_SKIPPED, config.data.split
    )
    closed = any(getattr(source, "level", "") == "character" for source in config.data.train)
    judged = () if closed else set(validation.texts)  # forms may have drawn a number in both
    return {TRAIN: few(train, MOST[TRAIN], judged), VALIDATION: few(validation, MOST[VALIDATION])}


def _fewer(sources: Sequence[SourceSettings], split: str, most: int) -> tuple[SourceSettings, ...]:
    """Return the sources, with at most `most` rendered samples of a split, as small files."""

    def is_rendered(source: SourceSettings) -> bool:
        return isinstance(source, SyntheticSettings) and source.split == split

    counts = [
        source.count
        for source in sources
        if isinstance(source, SyntheticSettings) and is_rendered(source)
    ]
    share = min(1.0, most / max(1, sum(counts)))

    def fewer(source: SourceSettings) -> SourceSettings:
        if not isinstance(source, SyntheticSettings) or not is_rendered(source):
            return source
        count = max(1, int(source.count * share))
        low, high = source.height_px
        heights = (min(low, _HIGHEST_PX), min(high, _HIGHEST_PX))
        return source.model_copy(
            update={
                "on_the_fly": False,
                "image_format": "webp",
                "count": count,
                "height_px": heights,
            }
        )

    return tuple(map(fewer, sources))


def main(bundle: str, data: str) -> None:
    """Add the samples; both arguments as on the command line."""
    opened = open_bundle(bundle)
    is_config = data.endswith((".yaml", ".yml"))
    files = files_of(load_settings(TrainConfig, Path(data))) if is_config else replay_files(data)
    made = with_replay(opened, opened.path, files)
    megabytes = sum(map(len, files.values())) / 1e6
    print(f"{made.path}: {made.name}@{made.sha256[:12]} with {megabytes:.1f} MB to replay")


if __name__ == "__main__":
    if len(sys.argv) != 3:
        print(__doc__, file=sys.stderr)
        sys.exit(2)
    try:
        main(sys.argv[1], sys.argv[2])
    except UserError as mistake:
        print(f"error: {mistake}", file=sys.stderr)
        sys.exit(2)
