"""The samples that a vision-language model can learn and read: whether their tokens fit."""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

from ocr.dataset.read import Dataset
from ocr.images import ImageRefused, image_size
from ocr.recognizers.vlm.base_model import Base
from ocr.recognizers.vlm.find import find_base
from ocr.recognizers.vlm.inputs import Prompt, fitted_size
from trainers.config import TrainConfig
from trainers.families.splits import Trained
from trainers.families.task import UsableSamples
from trainers.families.usable_samples import find_usable

LEAST_SIDE_PX = 256  # of a larger image's longer side: a page shrunk below it can hardly be read


def usable_samples(config: TrainConfig, train: Trained, validation: Dataset) -> UsableSamples:
    """Count every sample's tokens from its label and its image's header.

    Raises UserError where too many samples cannot be used (`max_skipped`), or none is left.
    """
    fitting = Fitting(config, find_base(config.vlm))

    def size_of(data: Trained, index: int, trains: bool) -> int:
        if config.zero_stage == 3 and not data.image_bytes(index):
            raise ImageRefused(
                f"{data.location}: sample {data.ids[index]}",
                "no image under ZeRO-3",
                "its workers run every layer together",
            )
        if not trains and not data.image_bytes(index):
            raise ImageRefused(
                f"{data.location}: sample {data.ids[index]}",
                "no image to read",
                "a text without an image can be learnt, not read",
            )
        return fitting.tokens(data, index)

    return find_usable(config, train, validation, size_of)


@dataclass(frozen=True)
class Fitting:
    """Whether samples fit into `model.max_length`, and how large their images may be."""

    config: TrainConfig
    base: Base

    @cached_property
    def prompt(self) -> Prompt:
        """The prompt before each answer."""
        return self.base.prompt(self.config.vlm)

    def answer(self, text: str) -> list[int]:
        """Return the token ids of a transcription, with the end token."""
        return [*self.base.tokenizer.encode(text, add_special_tokens=False), self.prompt.end_token]

    def room(self, answer: Sequence[int]) -> int:
        """Return the number of image tokens that fit beside this answer."""
        return self.config.vlm.max_length - (self.prompt.length(1) - 1) - len(answer)

    def tokens(self, data: Trained, index: int) -> int:
        """Return the number of tokens of a sample, its image shrunk as far as needed.

        Raises ImageRefused where the image would be illegible.
        """
        where, answer = f"{data.location}: sample {data.ids[index]}", self.answer(data.texts[index])
        content = data.image_bytes(index)
        if not content:
            return self.prompt.length(0) + len(answer)
        width, height = image_size(content, where=where)
        room, patching = self.room(answer), self.base.patching
        images = self.config.images
        most_pixels = max(1, room) * patching.token_pixels
        fitted = fitted_size(width, height, images, patching, most_pixels)
        tokens = patching.tokens(*fitted)
        least_side = min(LEAST_SIDE_PX, max(fitted_size(width, height, images, patching)))
        if tokens > room or max(fitted) < least_side:
            reason = (
                f"{len(answer):,} answer tokens leave {max(0, room):,} of model.max_length="
                f"{self.config.vlm.max_length} for an image of {width}×{height} px"
            )
            raise ImageRefused(where, "too many tokens", reason)
        return self.prompt.length(tokens) + len(answer)
