"""Several recognisers as one, which vote for each image's text."""

from collections import defaultdict
from collections.abc import Sequence
from typing import Literal

from ocr.errors import UserError
from ocr.images import Pixels
from ocr.recognizers.recognizer import PixelReader, Recognizer
from ocr.recognizers.words import Span
from ocr.sample import Reading


class Ensemble(PixelReader):
    """A recogniser that votes by confidence.

    A text's vote is the sum of the confidences of the members that read it. The confidence of the
    reading is the vote divided by the number of members.
    """

    def __init__(self, members: Sequence[Recognizer]) -> None:
        self.members = tuple(members)
        self.name = "+".join(member.name for member in members)
        modes: set[Literal["L", "RGB"]] = {member.image_mode for member in members}
        if len(modes) > 1:
            raise UserError(
                f"{self.name}: some read grey images and some colour; an ensemble takes "
                "members of one kind"
            )
        self.image_mode = modes.pop()
        self.reads_pages = all(member.reads_pages for member in members)

    def read_pixels(self, images: Sequence[Pixels]) -> list[Reading]:
        """Return one Reading per image; of equal votes the text of the first member wins."""
        return [
            self._vote(readings)
            for readings in zip(*(member.read(images) for member in self.members), strict=True)
        ]

    def read_words(self, images: Sequence[Pixels]) -> list[tuple[Reading, tuple[Span, ...]]]:
        """Return one Reading per image, its words where the first member with its text has them."""
        results = []
        for members in zip(*(member.read_words(images) for member in self.members), strict=True):
            vote = self._vote([reading for reading, _ in members])
            results.append((vote, next(s for r, s in members if r.text == vote.text)))
        return results

    def _vote(self, readings: Sequence[Reading]) -> Reading:
        votes: defaultdict[str, float] = defaultdict(float)
        for reading in readings:
            votes[reading.text] += reading.confidence
        best = max(votes, key=lambda text: votes[text])
        given, written = (sum(reading.tokens[side] for reading in readings) for side in (0, 1))
        return Reading(best, votes[best] / len(self.members), (given, written))
