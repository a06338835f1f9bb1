"""Characters, words, lines and paragraphs rendered with installed fonts, shaped by raqm.

Image i is a function of (seed, text, i) and of the fonts. With clutter (ocr.rendering.clutter) it
shows pieces of other texts too, and so depends on the whole list.
"""

import io
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

from PIL import Image

from ocr.dictionary import Dictionary
from ocr.errors import UserError
from ocr.images import Pixels, encode_image
from ocr.rendering.clutter import choose_clutter
from ocr.rendering.draws import Draws
from ocr.rendering.font import Font
from ocr.rendering.font_check import FontCheck
from ocr.rendering.fonts import usable_fonts
from ocr.rendering.render import render
from ocr.rendering.scripts import DANDAS, script_named
from ocr.rendering.texts import select_texts
from ocr.sample import Sample, Skip
from ocr.sources.settings import SyntheticSettings
from ocr.sources.unit import Unit, in_rows


@dataclass(frozen=True)
class Family:
    """The fonts of one family: families share the images evenly, however many weights each has."""

    name: str
    fonts: tuple[Font, ...]


def plan(settings: SyntheticSettings) -> list[Unit]:
    """Plan `count` images; UserError when no text or no font fits.

    Refused fonts, and oddities of a dictionary, are printed.
    """
    _prepared.cache_clear()  # texts and fonts may have changed since
    _report(*usable_fonts(script_named(settings.script), settings.fonts, settings.exclude_fonts))
    for oddity in (
        Dictionary.open(Path(settings.dictionary)).oddities
        if settings.dictionary is not None
        else ()
    ):
        print(oddity, flush=True)
    _prepared(settings)
    return in_rows("", settings.count)


def read(settings: SyntheticSettings, unit: Unit) -> Iterator[Sample | Skip]:
    """Yield rendered texts, or a Skip for each that no usable font renders."""
    texts, families = _prepared(settings)
    for index in range(unit.start, unit.stop):
        yield render_sample(settings, families, texts, index)


# for the sources of one data set: with a smaller cache each image would prepare its source again
@lru_cache(maxsize=32)
def _prepared(settings: SyntheticSettings) -> tuple[list[str], list[Family]]:
    """Return texts and fonts, prepared once for all units that this process reads."""
    fonts, _ = usable_fonts(script_named(settings.script), settings.fonts, settings.exclude_fonts)
    return select_texts(settings) if settings.dictionary is None else _entries(
        settings
    ), _by_family(fonts)


def _entries(settings: SyntheticSettings) -> list[str]:
    """Return the dictionary's entries in their order, of any script.

    The space, and entries with a fragment of `leave_out`, are left out. UserError when none is
    left.
    """
    entries = Dictionary.open(Path(settings.dictionary or "")).entries
    kept = [
        entry
        for entry in entries
        if entry.strip() and not any(fragment in entry for fragment in settings.leave_out)
    ]
    if not kept:
        raise UserError(
            f"{settings.dictionary}: leave_out leaves none of its {len(entries)} entries"
        )
    return kept


def render_sample(
    settings: SyntheticSettings, families: Sequence[Family], texts: Sequence[str], index: int
) -> Sample | Skip:
    """Render image `index`, with a danda and clutter by their shares.

    The texts are taken in turn. A Skip when no font renders the text.
    """
    word = texts[index % len(texts)]
    draws = Draws(settings.seed, word, index)
    text = _with_danda(settings, word, draws)
    where = f"synthetic:{settings.seed}:{index}"
    font = _choose_font(families, text, draws)
    if isinstance(font, str):
        return Skip(where, "no face draws the word", f"{text}: {font}")
    pixels = render(text, font, settings, draws, choose_clutter(settings, texts, text, index, font))
    return Sample(
        where,
        _encode(pixels, settings),
        text,
        settings.level,
        (("face", font.family), ("font", font.name)),
        "synthetic",
    )


def rendered_again(settings: SyntheticSettings, text: str, index: int, epoch: int) -> Pixels:
    """Render image `index` in a later epoch, with other random numbers and another font.

    UserError when no font renders the text any more.
    """
    texts, families = _prepared(settings)
    number = index + epoch * settings.count
    draws = Draws(settings.seed, text, number)
    font = _choose_font(families, text, draws)
    if isinstance(font, str):
        raise UserError(
            f"synthetic:{settings.seed}:{index}: no installed font renders {text}: {font}; "
            "install the fonts that the data set was made with"
        )
    return render(text, font, settings, draws, choose_clutter(settings, texts, text, number, font))


def _encode(pixels: Pixels, settings: SyntheticSettings) -> bytes:
    """Encode as ocr.images.encode_image, at WebP's middle effort: half the time, 3 % more bytes."""
    if settings.image_format == "png":
        return encode_image(pixels, "PNG")
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, "WEBP", quality=settings.quality, method=4)
    return buffer.getvalue()


def _choose_font(families: Sequence[Family], text: str, draws: Draws) -> Font | str:
    """Choose a font that can render the text, or return the last refusal.

    A random family and weight come first, then the other families at that weight, then any weight.
    """
    first, weight = draws.below(len(families)), draws.uniform()
    in_turn = [families[(first + step) % len(families)].fonts for step in range(len(families))]
    refusal: str | None = "no fonts"
    for font in (
        *(fonts[int(weight * len(fonts))] for fonts in in_turn),
        *(font for fonts in in_turn for font in fonts),
    ):
        refusal = font.refusal(text.replace("\n", ""))
        if refusal is None:
            return font
    return refusal or ""


def _with_danda(settings: SyntheticSettings, word: str, draws: Draws) -> str:
    with_danda = draws.uniform() < settings.danda_share and not word.endswith(tuple(DANDAS))
    return word + DANDAS[0] if with_danda else word


def _by_family(fonts: Iterable[Font]) -> list[Family]:
    grouped: dict[str, list[Font]] = {}
    for font in fonts:
        grouped.setdefault(font.family, []).append(font)
    return [Family(name, tuple(members)) for name, members in sorted(grouped.items())]


def _report(fonts: Sequence[Font], refused: Sequence[FontCheck]) -> None:
    for check in refused:
        print(
            f"font refused: {check.font.family} ({check.font.path.name}): {check.reason}",
            flush=True,
        )
    for font in fonts:
        for fragment, reason in font.avoid:
            print(
                f"font not used for {fragment}: {font.family} ({font.path.name}): {reason}",
                flush=True,
            )
