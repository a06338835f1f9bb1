"""Two data sets read as one: training samples, followed by those that are replayed."""

import hashlib
from functools import cached_property

from ocr.dataset.read import Dataset


class Joined:
    """`first`, then `second`; ids of the second open with `replay:`."""

    def __init__(self, first: Dataset, second: Dataset) -> None:
        self.first, self.second = first, second
        self.location = f"{first.location} and {second.location}"
        self.fingerprint = hashlib.sha256(
            f"{first.fingerprint}+{second.fingerprint}".encode()
        ).hexdigest()

    def __len__(self) -> int:
        return len(self.first) + len(self.second)

    @cached_property
    def ids(self) -> list[str]:
        """The ids in order."""
        return [*self.first.ids, *(f"replay:{id}" for id in self.second.ids)]

    @cached_property
    def texts(self) -> list[str]:
        """The normalised texts in order."""
        return [*self.first.texts, *self.second.texts]

    def image_bytes(self, index: int) -> bytes:
        """Return the encoded image file of one sample."""
        return (
            self.first.image_bytes(index)
            if index < len(self.first)
            else self.second.image_bytes(index - len(self.first))
        )
