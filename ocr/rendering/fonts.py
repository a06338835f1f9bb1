"""Installed fonts that render a script correctly: listed by fontconfig, then checked.

Every refusal has its reason.
`python -m ocr.rendering.fonts check Oriya [FAMILY|FILE|FOLDER …]` prints the check of each font;
`python -m ocr.rendering.fonts convert IN.woff2 OUT.ttf [--latin LATIN.woff2] [--family NAME]
[--axes wght=400,wdth=75]` unpacks a web font. Web fonts come cut by script: `--latin` adds the
Latin letters, digits and punctuation of the same face.
"""

import argparse
import io
import subprocess
import sys
from collections.abc import Iterable, Sequence
from pathlib import Path

from fontTools.ttLib import TTFont, TTLibError
from PIL import features

from ocr.errors import UserError
from ocr.rendering.font import Font, open_font, typographic_family
from ocr.rendering.font_check import FontCheck, check_font
from ocr.rendering.scripts import SCRIPTS, Script, script_named

FONT_SUFFIXES = (".ttf", ".otf", ".ttc")


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


def convert(
    source: Path,
    target: Path,
    family: str | None = None,
    axes: dict[str, float] | None = None,
    latin: Path | None = None,
) -> None:
    """Unpack a WOFF2 file to TrueType, named after the target file.

    `axes` fixes the values of its variable axes. The characters of `latin`, another cut of the same
    face, are added. UserError when a file is no font.
    """
    font = _unpacked(source, axes)
    family = family or typographic_family(font) or target.stem
    if latin is not None:
        font = _merged(font, _unpacked(latin, axes))
    _rename(font, family, target.stem)
    target.parent.mkdir(parents=True, exist_ok=True)
    font.save(target)


def _unpacked(source: Path, axes: dict[str, float] | None) -> TTFont:
    try:
        font = open_font(source, lazy=False)
    except (OSError, TTLibError, ImportError) as problem:
        raise UserError(f"{source}: cannot be read as a font: {problem}") from None
    if axes and "fvar" in font:
        from fontTools.varLib import instancer  # slow to import, and needed for variable fonts only

        font = instancer.instantiateVariableFont(font, axes)
    font.flavor = None
    return font


def _merged(*fonts: TTFont) -> TTFont:
    """Return one font with the characters and the shaping of all; the first's where both do."""
    from fontTools.merge import Merger

    files = []
    for font in fonts:
        files.append(io.BytesIO())
        font.save(files[-1])
        files[-1].seek(0)
    return Merger().merge(files)


def _family_of(path: Path) -> str:
    try:
        return typographic_family(open_font(path)) or path.stem
    except (OSError, TTLibError):
        return path.stem  # check_font refuses it with the reason


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
    converting.add_argument("--latin", type=Path, help="the same face's Latin cut")
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
            convert(options.source, options.target, options.family, axes, options.latin)
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
