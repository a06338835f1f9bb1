"""What a CTC run starts from: its alphabet, and what `train.init_from` names."""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING

from ocr.alphabet import Alphabet
from ocr.bundle import MANIFEST, Bundle, open_bundle
from ocr.dictionary import Dictionary
from ocr.errors import UserError
from ocr.mirror import fetched
from ocr.settings import resolved
from trainers.config import TrainConfig, config_of_run
from trainers.families.splits import Splits, Trained
from trainers.families.usable_samples import training_indices
from trainers.loop import checkpoint as checkpoints
from trainers.loop.checkpoint import Checkpoint

if TYPE_CHECKING:
    from torch import Tensor


@dataclass(frozen=True, slots=True)
class _OfCheckpoint(Bundle):
    """A checkpoint as a bundle, of which weights, network and alphabet are asked for."""

    def weights(self) -> "dict[str, Tensor]":
        """Return the checkpoint's tensors by name."""
        return checkpoints.verify_hashes(self.path).weights()


def initial_bundle(path: str) -> Bundle:
    """Return the bundle that `train.init_from` names: its folder, its run's, or one that ships.

    A checkpoint, or a run without a bundle by its newest good checkpoint, comes as one. Raises
    UserError where there is none, or one of another family.
    """
    folder = fetched(path)
    if (folder / "bundle" / MANIFEST).is_file():
        folder = folder / "bundle"
    if (folder / checkpoints.STATE).is_file():
        return _of_checkpoint(checkpoints.verify_hashes(folder.absolute()))
    if (folder / "config.yaml").is_file() and checkpoints.steps_of(folder):
        newest, damaged = checkpoints.newest_good(folder.absolute(), None)
        if newest is None:
            raise UserError(f"{path}: no checkpoint is good: {'; '.join(damaged)}")
        return _of_checkpoint(newest)
    bundle = open_bundle(folder)
    _require_ctc(bundle.family, path)
    return bundle


def _require_ctc(family: str, path: str | Path) -> None:
    if family != "ctc":
        raise UserError(
            f"{path}: of the family {family!r}; train.init_from needs one of the network's own"
        )


@lru_cache(maxsize=4)
def _of_checkpoint(checkpoint: Checkpoint) -> Bundle:
    """Return the checkpoint as a bundle; its alphabet is that of its run's bundle or data."""
    config = config_of_run(checkpoint.path / checkpoints.CONFIG)
    _require_ctc(config.family, checkpoint.path)
    alphabet = _alphabet(checkpoint, config)
    return _OfCheckpoint(
        path=checkpoint.path,
        family="ctc",
        name=config.run_name,
        model=resolved(config.ctc),
        alphabet=list(alphabet),
        backends={},
        defaults={},
    )


def _alphabet(checkpoint: Checkpoint, config: TrainConfig) -> tuple[str, ...]:
    finished = checkpoint.path.parent / "bundle"
    if (finished / MANIFEST).is_file():
        return tuple(open_bundle(finished).alphabet)
    try:
        alphabet = alphabet_of(config, Splits(config).train)
    except UserError as problem:
        raise UserError(
            f"{checkpoint.path}: its characters are those of the run's data: {problem}"
        ) from None
    return alphabet.characters


def alphabet_of(config: TrainConfig, train: Trained) -> Alphabet:
    """Return the alphabet of `model.alphabet`, of the dictionary, or else of the training texts.

    With `train.init_from` the alphabet of that bundle is kept, as `train.init_alphabet` says.
    """
    training, replay = training_indices(config, train)
    texts = [train.texts[index] for index in (*training, *replay)]
    given = config.ctc.alphabet
    if given is None and config.ctc.character_dict_path:
        given = "".join(_spelling(config, texts).entries)
    if given is None and config.train.init_from and config.train.init_alphabet != "new":
        given = "".join(initial_bundle(config.train.init_from).alphabet) + (
            "".join(texts) if config.train.init_alphabet == "union" else ""
        )
    if given is None:
        return Alphabet.from_texts(texts)
    alphabet = Alphabet.from_texts([given])
    alphabet.require(texts, where=f"{train.location}: labels")
    return alphabet


def _spelling(config: TrainConfig, texts: Sequence[str]) -> Dictionary:
    """Return the dictionary; UserError naming characters that no entry spells."""
    path = Path(str(config.ctc.character_dict_path))
    dictionary = Dictionary.open(path, config.ctc.use_space_char)
    missing = Counter(
        name for text in texts for name in dictionary.missing(text).split(", ") if name
    )
    if missing:
        listed = ", ".join(f"{name} ({count}×)" for name, count in missing.most_common(10))
        raise UserError(
            f"{path}: no entry spells {listed} of the training labels; add them, "
            "or leave the labels out with the source's character_dict_path"
        )
    return dictionary
