"""The one interface by which training, evaluation, the shell and the server read images."""

from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Literal, Protocol, overload

from ocr.images import Pixels
from ocr.recognizers.image_like import ImageLike, is_one, is_ready, pixels_of
from ocr.recognizers.words import Span, guessed_spans
from ocr.sample import Reading


class Recognizer(Protocol):
    """A reader of images; a neighbour in the list never changes a reading."""

    name: str
    image_mode: Literal["L", "RGB"]
    reads_pages: bool  # reads whole pages; else a page is cut into lines first (ocr/pages/)

    @overload
    def read(self, images: ImageLike) -> Reading: ...  # type: ignore[overload-overlap]
    @overload
    def read(self, images: Iterable[ImageLike]) -> list[Reading]: ...
    def read_words(self, images: Sequence[Pixels]) -> list[tuple[Reading, tuple[Span, ...]]]:
        """Return one Reading per image, and where its words are."""
        ...


class PixelReader:
    """A recogniser that reads pixels: it gets `.read` of whatever a program holds."""

    image_mode: Literal["L", "RGB"]

    def read_pixels(self, images: Sequence[Pixels]) -> list[Reading]:
        """Return one Reading per image; pixels are as `open_image` gives them in `image_mode`."""
        raise NotImplementedError

    def read_words(self, images: Sequence[Pixels]) -> list[tuple[Reading, tuple[Span, ...]]]:
        """Return one Reading per image, and where its words are, by their lengths and the gaps."""
        return [
            (reading, guessed_spans(reading.text, reading.confidence, image))
            for reading, image in zip(self.read_pixels(images), images, strict=True)
        ]

    @overload
    def read(self, images: ImageLike) -> Reading: ...  # type: ignore[overload-overlap]
    @overload
    def read(self, images: Iterable[ImageLike]) -> list[Reading]: ...
    def read(self, images: ImageLike | Iterable[ImageLike]) -> Reading | list[Reading]:
        """Return the Reading of one image, or a list of one Reading per image in the same order.

        An image is a path, the bytes of a file, a Pillow image, or a NumPy array [H, W] or
        [H, W, 1, 3 or 4]: colours are RGB, numbers 0–255, floats also 0–1, bool is black and
        white. ImageRefused names a bad one.
        """
        if is_one(images):
            return self.read_pixels([pixels_of(images, self.image_mode)])[0]
        items: list[ImageLike] = list(images)  # type: ignore[arg-type]
        if all(is_ready(image, self.image_mode) for image in items):
            return self.read_pixels(items)  # type: ignore[arg-type]
        count = len(items)
        return self.read_pixels(
            [
                pixels_of(image, self.image_mode, f"image {number} of {count}")
                for number, image in enumerate(items, start=1)
            ]
        )


def like_sizes(sizes: Sequence[int], fits: Callable[[list[int], int], bool]) -> Iterator[list[int]]:
    """Yield batches of indices, by rising size.

    `fits(batch, index)` says whether one more index fits into a batch that has some.
    """
    batch = list[int]()
    for index in sorted(range(len(sizes)), key=lambda index: sizes[index]):
        if batch and not fits(batch, index):
            yield batch
            batch = []
        batch.append(index)
    if batch:
        yield batch
