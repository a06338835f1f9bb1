"""The check of a font: whether it renders the pairs of a script differently."""

import unicodedata
from dataclasses import dataclass

import numpy as np
from fontTools.ttLib import TTLibError
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFilter

from ocr.rendering.font import CHECK_SIZE_PX, Font, has_placeholder
from ocr.rendering.scripts import JOINERS, Pair, Script

# as a share of the ink; measured: a nukta 0.04, Alkatra's open ya-phala 0.09, conjuncts ≥ 0.5
_LEAST_DIFFERENCE = {"mark": 0.02, "form": 0.25}
_MOST_WIDENING = 1.5  # most widening by a mark above or below
_MOST_WRONG_FORMS = 3


@dataclass(frozen=True, slots=True)
class FontCheck:
    """The result of the check of one font: usable when `reason` is empty."""

    font: Font
    reason: str = ""


def check_font(font: Font, script: Script) -> FontCheck:
    """Check a font by the script's pairs.

    A font that loses marks, or renders more than three forms wrong, is refused. The words with up
    to three wrong forms are only avoided.
    """
    try:
        faults = [(pair, fault) for pair in script.pairs if (fault := _fault(font, pair))]
        stray = [
            (fragment, f"renders {text} with a stray mark below")
            for text, base, fragment in script.level_below
            if _reaches_lower(font, text, base)
        ]
    except (OSError, TTLibError) as problem:
        return FontCheck(font, f"not a font that can be loaded: {problem}")
    lost = [fault.text for pair, fault in faults if pair.kind == "mark" and not fault.visible]
    if lost:
        return FontCheck(font, f"{len(lost)} marks wrong: {'; '.join(lost[:3])}")
    forms = dict([(pair.fragment, fault.text) for pair, fault in faults] + stray)
    if len(forms) > _MOST_WRONG_FORMS:
        return FontCheck(font, f"{len(forms)} forms wrong: {'; '.join(forms.values())}")
    return FontCheck(Font(font.path, font.family, tuple(forms.items())))


@dataclass(frozen=True, slots=True)
class _Fault:
    """One fault of a font.

    `visible`: the image itself shows the fault (a dotted circle), so every such word can be found.
    """

    text: str
    visible: bool = False


def _fault(font: Font, pair: Pair) -> _Fault | None:
    missing = [
        character
        for character in pair.text
        if ord(character) not in font.characters and character not in JOINERS
    ]
    if missing:
        return _Fault(f"no glyph for U+{ord(missing[0]):04X} of {pair.text}")
    if has_placeholder(font.path, pair.text):
        return _Fault(f"renders {pair.text} with a dotted circle", visible=True)
    if pair.kind == "mark" and _is_beside_letter(font, pair):
        return _Fault(f"renders the mark of {pair.text} beside its letter")
    first, second = _softened(font, pair.text), _softened(font, pair.unlike)
    difference = np.abs(first - second).sum() / max(np.maximum(first, second).sum(), 1.0)
    if difference >= _LEAST_DIFFERENCE[pair.kind]:
        return None
    return _Fault(
        f"renders {pair.text} like {pair.unlike}"
        if pair.kind == "mark"
        else f"does not form {pair.text}"
    )


def _is_beside_letter(font: Font, pair: Pair) -> bool:
    """Return whether a mark without width of its own makes the ink much wider.

    It does in fonts that give every character a cell.
    """
    if any(unicodedata.category(character) != "Mn" for character in pair.fragment):
        return False
    wide, narrow = (
        font.at(CHECK_SIZE_PX).getbbox(text, anchor="ls") for text in (pair.text, pair.unlike)
    )
    return bool(wide[2] - wide[0] > _MOST_WIDENING * (narrow[2] - narrow[0]))


def _softened(font: Font, text: str) -> NDArray[np.float64]:
    """Render the text at a fixed position, softened against shifts by part of a stroke."""
    canvas = Image.new("L", (6 * CHECK_SIZE_PX, 3 * CHECK_SIZE_PX))
    ImageDraw.Draw(canvas).text(
        (CHECK_SIZE_PX, 2 * CHECK_SIZE_PX),
        text,
        font=font.at(CHECK_SIZE_PX),
        fill=255,
        anchor="ls",
    )
    return np.asarray(canvas.filter(ImageFilter.GaussianBlur(2)), dtype=np.float64)


def _reaches_lower(font: Font, text: str, base: str) -> bool:
    sized = font.at(CHECK_SIZE_PX)
    lowest, base_lowest = (sized.getbbox(shown, anchor="ls")[3] for shown in (text, base))
    return bool(lowest > base_lowest + 0.06 * CHECK_SIZE_PX)
