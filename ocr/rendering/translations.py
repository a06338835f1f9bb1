"""The strings of an installed program in one language, as text to render.

`python -m ocr.rendering.translations FOLDER > strings.txt` prints every translated string of the
compiled catalogues (GNU gettext, .mo) below a folder: words of menus, dialogs and help, with the
digits, brackets and Latin words that running text lacks. ocr/assets/texts/README.md has the
packages.
"""

import gettext
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path

import regex

_MARKUP = regex.compile(r"<[^<>]*>|\$?[{(%$][\w.]+[)}%$]|\$\w+|%\w+|[_~&](?=\w)")


def strings(folder: Path) -> Iterator[str]:
    """Yield the distinct translations of all catalogues below the folder, in order.

    Markup, names of variables and marks of keyboard shortcuts are left out.
    """
    found = set[str]()
    for path in sorted(folder.rglob("*.mo")):
        with path.open("rb") as file:
            catalogue = gettext.GNUTranslations(file)
        found |= {text for key, text in vars(catalogue)["_catalog"].items() if key and text != key}
    lines = {
        " ".join(_MARKUP.sub(" ", line).split()) for text in found for line in text.split("\n")
    }
    yield from sorted(lines - {""})


def _main(arguments: Sequence[str]) -> int:
    found = list(strings(Path(arguments[0]))) if len(arguments) == 1 else []
    if not found:
        where = f"{arguments[0]}: no .mo file with translations below it; " if arguments else ""
        print(f"{where}python -m ocr.rendering.translations FOLDER > strings.txt", file=sys.stderr)
        return 2
    print(*found, sep="\n")
    return 0


if __name__ == "__main__":
    sys.exit(_main(sys.argv[1:]))
