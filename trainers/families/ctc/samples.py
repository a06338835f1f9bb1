"""The samples that a CTC network can learn and read, and the alphabet that it writes with."""

from dataclasses import dataclass, fields

from ocr.alphabet import Alphabet
from ocr.dataset.read import Dataset
from ocr.images import ImageRefused, image_size
from ocr.recognizers.ctc.inputs import input_width
from trainers.config import TrainConfig
from trainers.families.ctc.initial import alphabet_of
from trainers.families.ctc.losses import outputs_needed
from trainers.families.splits import Trained
from trainers.families.task import UsableSamples
from trainers.families.usable_samples import find_usable


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
    alphabet = alphabet_of(config, train)
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
