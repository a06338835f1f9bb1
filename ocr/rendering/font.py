"""A font file at any size, and the texts that it must not render."""

import io
import logging
import unicodedata
from dataclasses import dataclass
from functools import cached_property, lru_cache
from pathlib import Path
from typing import Any

from fontTools.pens.recordingPen import DecomposingRecordingPen
from fontTools.ttLib import TTFont
from PIL import ImageFont

from ocr.rendering.scripts import JOINERS

DOTTED_CIRCLE = 0x25CC
CHECK_SIZE_PX = 64
_FLAGGED_ADVANCE = 65_000  # font units: far wider than any glyph


@dataclass(frozen=True)
class Font:
    """One font file with its family.

    `avoid` (fragment → reason) lists the fragments that it renders wrong; `check_font` fills it.
    """

    path: Path
    family: str
    avoid: tuple[tuple[str, str], ...] = ()

    @property
    def name(self) -> str:
        """The file's stem: unlike the family, it differs between weights."""
        return self.path.stem

    def at(self, size_px: int) -> ImageFont.FreeTypeFont:
        """Return the font at a size, shaped by raqm; cached."""
        return _font(self.path, size_px)

    @cached_property
    def characters(self) -> frozenset[int]:
        """The code points that the font has a glyph for."""
        return frozenset(open_font(self.path).getBestCmap() or ())

    def refusal(self, text: str) -> str | None:
        """Return why this font must not render the text; None when it may."""
        missing = [
            character
            for character in text
            if ord(character) not in self.characters and character not in JOINERS
        ]
        if missing:
            return f"no glyph for U+{ord(missing[0]):04X}"
        for fragment, reason in self.avoid:
            if fragment in text:
                return reason
        return (
            "renders a dotted circle or an empty box" if has_placeholder(self.path, text) else None
        )


def has_placeholder(path: Path, text: str) -> bool:
    """Return whether shaping yields .notdef or a dotted circle.

    In the probe these glyphs are wider than anything else.
    """
    probe = _probe(path)
    return probe.getlength(text) - _font(path, CHECK_SIZE_PX).getlength(text) > 5 * CHECK_SIZE_PX


@lru_cache(maxsize=4096)
def _font(path: Path, size_px: int) -> ImageFont.FreeTypeFont:
    return ImageFont.truetype(str(path), size_px, layout_engine=ImageFont.Layout.RAQM)


@lru_cache(maxsize=512)
def _probe(path: Path) -> ImageFont.FreeTypeFont:
    """Return a copy of the font in memory whose placeholders have an absurd advance.

    Placeholders are .notdef and dotted circles.
    """
    font = open_font(path, lazy=False)
    names = {font.getGlyphOrder()[0], *_dotted_glyphs(font)}
    for name in names:
        font["hmtx"][name] = (_FLAGGED_ADVANCE, font["hmtx"][name][1])
    for table in ("DSIG", "HVAR", "hdmx", "LTSH"):
        if table in font:
            del font[table]
    buffer = io.BytesIO()
    font.save(buffer, reorderTables=None)
    buffer.seek(0)
    return ImageFont.truetype(buffer, CHECK_SIZE_PX, layout_engine=ImageFont.Layout.RAQM)


def _dotted_glyphs(font: TTFont) -> set[str]:
    """Return the glyphs that show a dotted circle.

    They are U+25CC itself, and glyphs of combining marks that hold a ring of their own (five
    contours or more; a true mark has four at most).
    """
    cmap, glyphs = font.getBestCmap(), font.getGlyphSet()
    marks = {name for code, name in cmap.items() if unicodedata.category(chr(code)).startswith("M")}
    ringed = {name for name in marks if _contours(glyphs, name) >= 5}
    return ringed | ({cmap[DOTTED_CIRCLE]} if DOTTED_CIRCLE in cmap else set())


def _contours(glyphs: Any, name: str) -> int:
    pen = DecomposingRecordingPen(glyphs)
    glyphs[name].draw(pen)
    return sum(operation in ("closePath", "endPath") for operation, _ in pen.value)


def open_font(path: Path, lazy: bool = True) -> TTFont:
    """Open a font file with fontTools, from memory."""
    # it warns of every oddity in fonts that render well
    logging.getLogger("fontTools").setLevel(logging.ERROR)
    # from memory: TTFont would leave the handle of a broken file open
    return TTFont(io.BytesIO(path.read_bytes()), fontNumber=0, lazy=lazy)


def typographic_family(font: TTFont) -> str | None:
    """Return the family name without the weight; None where the font has no name."""
    names = font["name"]
    return (names.getDebugName(16) or names.getDebugName(1) or "").strip() or None
