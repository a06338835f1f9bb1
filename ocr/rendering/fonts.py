"""Installed fonts that render a script correctly: listed by fontconfig, then checked.

Every refusal has its reason.
`python -m ocr.rendering.fonts check Oriya [FAMILY|FILE|FOLDER …]` prints the check of each font;
`python -m ocr.rendering.fonts convert IN.woff2 OUT.ttf [--family NAME] [--axes wght=400,wdth=75]`
unpacks a web font.
"""

import argparse
import io
import logging
import subprocess
import sys
import unicodedata
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import cached_property, lru_cache
from pathlib import Path
from typing import Any

import numpy as np
from fontTools.pens.recordingPen import DecomposingRecordingPen
from fontTools.ttLib import TTFont, TTLibError
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFilter, ImageFont, features

from ocr.errors import UserError
from ocr.rendering.scripts import JOINERS, SCRIPTS, Pair, Script, script_named

FONT_SUFFIXES = (".ttf", ".otf", ".ttc")
DOTTED_CIRCLE = 0x25CC
_CHECK_SIZE_PX = 64
_LEAST_DIFFERENCE = {
    "mark": 0.02,
    "form": 0.25,
    # least difference, as a share of the ink; measured: a nukta 0.04, Alkatra's open ya-phala 0.09,
    # true conjuncts ≥ 0.5
}
_MOST_WIDENING = 1.5  # most widening by a mark above or below
_MOST_WRONG_FORMS = 3
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
        return frozenset(_open_font(self.path).getBestCmap() or ())

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
            "renders a dotted circle or an empty box" if _has_placeholder(self.path, text) else None
        )


@dataclass(frozen=True, slots=True)
class FontCheck:
    """The result of the check of one font: usable when `reason` is empty."""

    font: Font
    reason: str = ""


def require_shaping() -> None:
    """Raise UserError when Pillow cannot shape: it would silently render Indic text wrong."""
    if not features.check("raqm"):
        raise UserError(
            "Pillow has no raqm, so it would render Indic and Thai text wrong; install "
            "Pillow's own wheel (pip install --force-reinstall pillow) or libraqm0"
        )


def usable_fonts(
    script: Script, wanted: Sequence[str], excluded: Sequence[str] = ()
) -> tuple[list[Font], list[FontCheck]]:
    """Return the usable fonts, and the checks of those refused; UserError when none is left."""
    require_shaping()
    candidates = [
        font
        for font in find_fonts(script, wanted)
        if font.family not in excluded and font.name not in excluded
    ]
    checks = [check_font(font, script) for font in candidates]
    passed = [check.font for check in checks if not check.reason]
    refused = [check for check in checks if check.reason]
    if not passed:
        reasons = "".join(f"\n  {check.font.path.name}: {check.reason}" for check in refused)
        raise UserError(
            f"no usable font for {script.name} among "
            f"{', '.join(wanted) or 'the installed fonts'}; {_advice(script)}{reasons}"
        )
    return passed, refused


def find_fonts(script: Script, wanted: Sequence[str]) -> list[Font]:
    """Return fonts named by family, file or folder, in a fixed order.

    All fonts that fontconfig lists for the script, when none is named.
    """
    paths = (
        {path for item in wanted for path in _paths_of(item, script)}
        if wanted
        else set(_listed(_pattern_of(script)))
    )
    by_stem = {path.stem: path for path in sorted(paths)}
    return [Font(path, _family_of(path)) for _, path in sorted(by_stem.items())]


def _pattern_of(script: Script) -> str:
    """Return fontconfig's pattern for the script's fonts."""
    return f":lang={script.language}" if script.language else f":charset={ord(script.letters[0]):x}"


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


def convert(
    source: Path, target: Path, family: str | None = None, axes: dict[str, float] | None = None
) -> None:
    """Unpack a WOFF2 file to TrueType, named after the target file.

    `axes` fixes the values of its variable axes.
    """
    try:
        font = _open_font(source, lazy=False)
    except (OSError, TTLibError, ImportError) as problem:
        raise UserError(f"{source}: cannot be read as a font: {problem}") from None
    if axes and "fvar" in font:
        from fontTools.varLib import instancer  # slow to import, and needed for variable fonts only

        font = instancer.instantiateVariableFont(font, axes)
    font.flavor = None
    _rename(font, family or _typographic_family(font) or target.stem, target.stem)
    target.parent.mkdir(parents=True, exist_ok=True)
    font.save(target)


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
    if _has_placeholder(font.path, pair.text):
        return _Fault(f"renders {pair.text} with a dotted circle", visible=True)
    if pair.kind == "mark" and _is_beside_letter(font, pair):
        return _Fault(f"renders the mark of {pair.text} beside its letter")
    first, second = _picture(font, pair.text), _picture(font, pair.unlike)
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
        font.at(_CHECK_SIZE_PX).getbbox(text, anchor="ls") for text in (pair.text, pair.unlike)
    )
    return bool(wide[2] - wide[0] > _MOST_WIDENING * (narrow[2] - narrow[0]))


def _picture(font: Font, text: str) -> NDArray[np.float64]:
    """Render the text at a fixed position, softened against shifts by part of a stroke."""
    canvas = Image.new("L", (6 * _CHECK_SIZE_PX, 3 * _CHECK_SIZE_PX))
    ImageDraw.Draw(canvas).text(
        (_CHECK_SIZE_PX, 2 * _CHECK_SIZE_PX),
        text,
        font=font.at(_CHECK_SIZE_PX),
        fill=255,
        anchor="ls",
    )
    return np.asarray(canvas.filter(ImageFilter.GaussianBlur(2)), dtype=np.float64)


def _reaches_lower(font: Font, text: str, base: str) -> bool:
    sized = font.at(_CHECK_SIZE_PX)
    lowest, base_lowest = (sized.getbbox(shown, anchor="ls")[3] for shown in (text, base))
    return bool(lowest > base_lowest + 0.06 * _CHECK_SIZE_PX)


def _has_placeholder(path: Path, text: str) -> bool:
    """Return whether shaping yields .notdef or a dotted circle.

    In the probe these glyphs are wider than anything else.
    """
    probe = _probe(path)
    return probe.getlength(text) - _font(path, _CHECK_SIZE_PX).getlength(text) > 5 * _CHECK_SIZE_PX


@lru_cache(maxsize=4096)
def _font(path: Path, size_px: int) -> ImageFont.FreeTypeFont:
    return ImageFont.truetype(str(path), size_px, layout_engine=ImageFont.Layout.RAQM)


@lru_cache(maxsize=512)
def _probe(path: Path) -> ImageFont.FreeTypeFont:
    """Return a copy of the font in memory whose placeholders have an absurd advance.

    Placeholders are .notdef and dotted circles.
    """
    font = _open_font(path, lazy=False)
    names = {font.getGlyphOrder()[0], *_dotted_glyphs(font)}
    for name in names:
        font["hmtx"][name] = (_FLAGGED_ADVANCE, font["hmtx"][name][1])
    for table in ("DSIG", "HVAR", "hdmx", "LTSH"):
        if table in font:
            del font[table]
    buffer = io.BytesIO()
    font.save(buffer, reorderTables=None)
    buffer.seek(0)
    return ImageFont.truetype(buffer, _CHECK_SIZE_PX, layout_engine=ImageFont.Layout.RAQM)


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


def _open_font(path: Path, lazy: bool = True) -> TTFont:
    logging.getLogger("fontTools").setLevel(
        logging.ERROR
    )  # fontTools warns of every oddity in fonts that render well
    return TTFont(
        io.BytesIO(path.read_bytes()), fontNumber=0, lazy=lazy
    )  # from memory: TTFont would leave the handle of a broken file open


def _family_of(path: Path) -> str:
    try:
        return _typographic_family(_open_font(path)) or path.stem
    except (OSError, TTLibError):
        return path.stem  # check_font refuses it with the reason


def _typographic_family(font: TTFont) -> str | None:
    names = font["name"]
    return (names.getDebugName(16) or names.getDebugName(1) or "").strip() or None


def _rename(font: TTFont, family: str, stem: str) -> None:
    names = font["name"]
    for name_id in (16, 17, 21, 22, 25):
        names.removeNames(nameID=name_id)
    for name_id, value in (
        (1, family),
        (2, "Regular"),
        (4, stem),
        (6, stem),
        (16, family),
        (17, stem),
    ):
        names.setName(value, name_id, 3, 1, 0x409)


def _paths_of(item: str, script: Script) -> list[Path]:
    path = Path(item)
    if path.is_dir():
        return sorted(file for file in path.rglob("*") if file.suffix.lower() in FONT_SUFFIXES)
    if path.is_file():
        return [path]
    if "/" in item or path.suffix.lower() in FONT_SUFFIXES:
        raise UserError(f"{item}: no such font file or folder; `make fonts` fills fonts/")
    paths = _listed(f":family={item}")
    if not paths:
        raise UserError(
            f"{item}: fontconfig knows no such family; {_advice(script)}, or see `fc-list "
            f"{_pattern_of(script)} family`"
        )
    return paths


def _listed(pattern: str) -> list[Path]:
    try:
        listing = subprocess.run(
            ["fc-list", pattern, "file"], capture_output=True, text=True, check=True, timeout=60
        ).stdout
    except FileNotFoundError:
        raise UserError(
            "fc-list is missing, so fonts cannot be found; install the package fontconfig or "
            "name font files"
        ) from None
    paths = (Path(line.rstrip(": ")) for line in listing.splitlines())
    return sorted(path for path in paths if path.suffix.lower() in FONT_SUFFIXES)


def _advice(script: Script) -> str:
    return f"install {' or '.join(script.packages)} (apt-get install {' '.join(script.packages)})"


def _main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(
        prog="python -m ocr.rendering.fonts",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    verbs = parser.add_subparsers(dest="verb", required=True)
    converting = verbs.add_parser("convert")
    converting.add_argument("source", type=Path)
    converting.add_argument("target", type=Path)
    converting.add_argument("--family")
    converting.add_argument("--axes", default="", help="such as wght=400,wdth=75")
    checking = verbs.add_parser("check")
    checking.add_argument("script", help=f"{', '.join(SCRIPTS)}, or any other by its Unicode name")
    checking.add_argument("fonts", nargs="*")
    options = parser.parse_args(arguments)
    try:
        if options.verb == "convert":
            axes = {
                tag: float(value)
                for tag, _, value in (
                    part.partition("=") for part in options.axes.split(",") if part
                )
            }
            convert(options.source, options.target, options.family, axes)
        else:
            require_shaping()
            print(
                "\n".join(
                    _describe(check_font(font, script_named(options.script)))
                    for font in find_fonts(script_named(options.script), options.fonts)
                )
            )
    except UserError as problem:
        print(problem, file=sys.stderr)
        return 2
    return 0


def _describe(check: FontCheck) -> str:
    avoided: Iterable[str] = (
        f"not for {fragment}: {reason}" for fragment, reason in check.font.avoid
    )
    state = f"refused: {check.reason}" if check.reason else "; ".join(["usable", *avoided])
    return f"{check.font.family} ({check.font.path.name}): {state}"


if __name__ == "__main__":
    sys.exit(_main())
