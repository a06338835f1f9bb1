"""The samples that a CTC network can learn and read, and the alphabet that it writes with."""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, fields
from pathlib import Path

from ocr.alphabet import Alphabet
from ocr.bundle import Bundle, open_bundle
from ocr.dataset.read import Dataset
from ocr.dictionary import Dictionary
from ocr.errors import UserError
from ocr.images import ImageRefused, image_size
from ocr.recognizers.ctc.inputs import input_width
from trainers.config import TrainConfig
from trainers.families.ctc.losses import outputs_needed
from trainers.families.splits import Trained
from trainers.families.task import UsableSamples
from trainers.families.usable_samples import find_usable, training_indices


@dataclass(frozen=True, slots=True, kw_only=True)
class CtcUsableSamples(UsableSamples):
    """The samples that a CTC network can use, and the characters that the network can write."""

    alphabet: Alphabet

    @property
    def vocabulary_size(self) -> int | None:
        """The number of characters in the alphabet."""
        return len(self.alphabet)


def usable_samples(config: TrainConfig, train: Trained, validation: Dataset) -> CtcUsableSamples:
    """Check every label and image header before training.

    Raises UserError where too many cannot be used (`max_skipped`), or none is left.
    """
    training, replay = training_indices(config, train)
    alphabet = _alphabet(config, train, [*training, *replay])
    usable = find_usable(
        config,
        train,
        validation,
        lambda data, index, trains: _width_to_learn(config, alphabet, data, index, trains),
    )
    unknown = alphabet.unknown(validation.texts[index] for index in usable.validation)
    known = {each.name: getattr(usable, each.name) for each in fields(usable)}
    return CtcUsableSamples(
        **{**known, "unknown_characters": dict(unknown.most_common())}, alphabet=alphabet
    )


def _alphabet(config: TrainConfig, train: Trained, training: Sequence[int]) -> Alphabet:
    """Return the alphabet of `model.alphabet`, of the dictionary, or else of the training texts.

    With `train.init_from` the alphabet of that bundle is kept, as `train.init_alphabet` says.
    """
    texts = [train.texts[index] for index in training]
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


def initial_bundle(path: str) -> Bundle:
    """Return the bundle that `train.init_from` names: its folder, its run's, or one that ships.

    Raises UserError where there is none, or one of another family.
    """
    folder = Path(path)
    bundle = open_bundle(folder / "bundle" if (folder / "bundle").is_dir() else folder)
    if bundle.family != "ctc":
        raise UserError(
            f"{path}: a bundle of the family {bundle.family!r}; "
            "train.init_from needs one of the network's own"
        )
    return bundle


def _width_to_learn(
    config: TrainConfig, alphabet: Alphabet, data: Trained, index: int, learn: bool
) -> int:
    """Return the fewest columns that a sample has at the network's input.

    Trimming empty rows gives more. Raises ImageRefused where the sample cannot be used.
    """
    where = f"{data.location}: sample {data.ids[index]}"
    width, height = image_size(data.image_bytes(index), where=where)
    scaled_px = width * config.ctc.stretch * config.ctc.height_px / height
    columns = input_width(max(1, round(scaled_px)), config.ctc)
    needed = outputs_needed(alphabet.encode(data.texts[index])) if learn else 0
    given = config.ctc.outputs(columns)
    if needed > given:
        is_fixed = config.ctc.fixed_width_px is not None
        giver = "model.out_char_num gives" if is_fixed else f"{width}×{height} px give"
        dense = config.ctc.columns_per_output <= 4
        more = "" if dense else "; model.kind=compact gives twice as many"
        reason = f"{data.texts[index]!r} needs {needed} outputs, {giver} {given}{more}"
        raise ImageRefused(where, "label too long for its image", reason)
    return columns
