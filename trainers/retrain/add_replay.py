"""Put samples to replay into a bundle: some of the data set, or of what the config draws, that it was trained on.

python -m trainers.retrain.add_replay runs/odia-ctc/bundle data/my_lines           # a prepared data set
python -m trainers.retrain.add_replay ocr/assets/recognisers/thai configs/bases/thai.yaml       # the config of its run: drawn anew, as many as a bundle may carry
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

_SKIPPED = 0.1  # of what is drawn: faces lack a sign here and there, and of few samples that is a larger share than in the run


def files_of(config: TrainConfig) -> dict[str, bytes]:
    """The two files for a bundle, from a config's sources, or from the data set that it names."""
    if isinstance(config.data.train, str):
        return replay_files(config.data.train)
    sources = _fewer(config.data.train, "train", MOST[TRAIN])
    sources = _fewer(sources, "validation", MOST[VALIDATION])
    train, validation = open_splits(sources, None, config.data.validation_ratio, _SKIPPED)
    return {TRAIN: few(train, MOST[TRAIN]), VALIDATION: few(validation, MOST[VALIDATION])}


def _fewer(sources: Sequence[SourceSettings], split: str, most: int) -> tuple[SourceSettings, ...]:
    """Drawn sources of a split with fewer samples in all, as small files; others as they are."""
    drawn = [
        source
        for source in sources
        if isinstance(source, SyntheticSettings) and source.split == split
    ]
    share = min(1.0, most / max(1, sum(source.count for source in drawn)))
    less = {"on_the_fly": False, "image_format": "webp"}
    return tuple(
        source.model_copy(update={**less, "count": max(1, int(source.count * share))})
        if isinstance(source, SyntheticSettings) and source.split == split
        else source
        for source in sources
    )


def main(bundle: str, data: str) -> None:
    """Both arguments as on the command line."""
    opened = open_bundle(Path(bundle))
    files = (
        files_of(load_settings(TrainConfig, Path(data)))
        if data.endswith((".yaml", ".yml"))
        else replay_files(data)
    )
    made = with_replay(opened, opened.path, files)
    print(
        f"{made.path}: {made.name}@{made.sha256[:12]} with {sum(map(len, files.values())) / 1e6:.1f} MB to replay"
    )


if __name__ == "__main__":
    if len(sys.argv) != 3:
        print(__doc__, file=sys.stderr)
        sys.exit(2)
    try:
        main(sys.argv[1], sys.argv[2])
    except UserError as mistake:
        print(f"error: {mistake}", file=sys.stderr)
        sys.exit(2)
