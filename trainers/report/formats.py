"""Numbers and characters as a person reads them; a missing value is an en dash."""

import math
import unicodedata
from collections.abc import Mapping
from pathlib import PurePath
from typing import Any

from ocr.text import describe_character
from trainers.report.records import finite

MISSING = "–"


def percent(rate: Any) -> str:
    """Return a rate in per cent: 0.0184 → `1.84%`.

    Below 10% and above 99% it has two digits; only an exact 0 or 1 is shown as such.
    """
    if not finite(rate):
        return MISSING
    if rate in (0, 1):
        return f"{rate:.0%}"
    if 0 < rate < 0.0001:
        return "<0.01%"
    if 0.9999 < rate < 1:
        return ">99.99%"
    return f"{rate:.2%}" if rate < 0.1 or 0.99 < rate < 1 else f"{rate:.1%}"


def count(number: Any) -> str:
    """Return a whole number with separators: 6000 → `6,000`."""
    return f"{number:,.0f}" if finite(number) else MISSING


def decimal(number: Any) -> str:
    """Return three significant digits without exponent: `0.0421`, `3.21`, `214`, `12,345`."""
    if not finite(number):
        return MISSING
    digits = 0 if number == 0 else max(0, 2 - math.floor(math.log10(abs(number))))
    return f"{number:,.{min(digits, 6)}f}"


def duration(seconds: Any) -> tuple[str, str]:
    """Return (value, unit): seconds below two minutes, hours from two hours on, else minutes."""
    if not finite(seconds):
        return MISSING, "minutes"
    if seconds < 120:
        return decimal(seconds), "seconds"
    return (
        (decimal(seconds / 60), "minutes") if seconds < 7200 else (decimal(seconds / 3600), "hours")
    )


def size(number: Any) -> str:
    """Return a number of parameters in the field's units: `812 k`, `4.91 M`, `3.09 B`."""
    if not finite(number):
        return MISSING
    for limit, unit in ((1e9, " B"), (1e6, " M"), (1e3, " k")):
        if number >= limit:
            return decimal(number / limit) + unit
    return count(number)


def value(thing: Any) -> str:
    """Return any JSON value as running text."""
    if thing is None:
        return MISSING
    if isinstance(thing, bool):
        return "yes" if thing else "no"
    if isinstance(thing, int):
        return count(thing)
    if isinstance(thing, float):
        return decimal(thing)
    if isinstance(thing, Mapping):
        return ", ".join(f"{key} {value(part)}" for key, part in thing.items()) or "none"
    if isinstance(thing, list | tuple):
        return ", ".join(map(value, thing)) or "none"
    return str(thing)


def code_points(text: str) -> str:
    """Return `U+0B15 U+0B4D U+0B37`, the spelling behind a picture; a template calls it."""
    return " ".join(f"U+{ord(character):04X}" for character in text)


def names(text: str) -> str:
    """Return code points with their Unicode names, for a tooltip."""
    return ", ".join(map(describe_character, text))


def visible(text: str) -> str:
    """Return the text, or the names of its characters where it would be invisible."""
    invisible = ("Zs", "Zl", "Zp", "Cf", "Cc")
    if not text or any(unicodedata.category(character) not in invisible for character in text):
        return text
    if text == " ":
        return "␣"
    return " + ".join(describe_character(character).partition(" ")[2].lower() for character in text)


def plain(thing: Any) -> Any:
    """Return the value for JSON: paths and keys as text, tuples as lists, NaN as null."""
    if isinstance(thing, Mapping):
        return {str(key): plain(part) for key, part in thing.items()}
    if isinstance(thing, list | tuple):
        return [plain(part) for part in thing]
    if isinstance(thing, float) and not math.isfinite(thing):
        return None
    return str(thing) if isinstance(thing, PurePath) else thing
