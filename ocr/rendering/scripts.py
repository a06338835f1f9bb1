"""Scripts as rendering knows them: block, packages, and texts that a font must tell apart."""

from dataclasses import dataclass
from functools import lru_cache
from typing import Literal

import regex

from ocr.errors import UserError

JOINERS = "\u200c\u200d"
DANDAS = "\u0964\u0965"


@dataclass(frozen=True, slots=True)
class Pair:
    """Two texts that a usable font renders differently; else `fragment` is rendered wrong.

    A lost mark makes every label suspect; a missing form (a conjunct left open) only the words that
    hold the fragment.
    """

    text: str
    unlike: str
    fragment: str
    kind: Literal["mark", "form"]


@dataclass(frozen=True, slots=True)
class Script:
    """A script by its Unicode name, with the packages of its fonts.

    Without a block (`first`), only coverage is checked.
    """

    name: str
    first: str
    last: str
    language: str
    packages: tuple[str, ...]
    digits: str
    pairs: tuple[Pair, ...]
    letters: str = ""  # ordinary letters, where there are no pairs
    # (text, base, fragment): text may not reach lower than its base
    level_below: tuple[tuple[str, str, str], ...] = ()

    def holds(self, text: str) -> bool:
        """Return whether every character belongs to the script, or is a danda or a joiner.

        Without a block, Unicode's script property decides.
        """
        if not self.first:
            return regex.fullmatch(rf"[\p{{Script={self.name}}}\p{{Inherited}}]+", text) is not None
        return all(
            self.first <= character <= self.last or character in JOINERS + DANDAS
            for character in text
        )


def _marks(*pairs: tuple[str, str, str]) -> tuple[Pair, ...]:
    return tuple(Pair(text, unlike, fragment, "mark") for unlike, text, fragment in pairs)


def _forms(*pairs: tuple[str, str, str]) -> tuple[Pair, ...]:
    return tuple(Pair(text, unlike, fragment, "form") for text, unlike, fragment in pairs)


def _conjuncts(virama: str, *clusters: str) -> tuple[Pair, ...]:
    """Return pairs: a conjunct may not look like its letters with an open virama between them."""
    return tuple(
        Pair(cluster, cluster.replace(virama, virama + "\u200c"), cluster, "form")
        for cluster in clusters
    )


_ORIYA = Script(
    "Oriya",
    "\u0b00",
    "\u0b7f",
    "or",
    ("fonts-noto-core", "fonts-lohit-orya", "fonts-orya-extra"),
    "୦୧୨୩୪୫୬୭୮୯",
    _marks(
        ("ପ", "ପି", "ି"),
        ("ପ", "ପୁ", "ୁ"),
        ("ପୁ", "ପୂ", "ୂ"),
        ("ପ", "ପୃ", "ୃ"),
        ("ପ", "ପଁ", "ଁ"),
        ("ଡ", "ଡ଼", "଼"),
    )
    + _marks(
        ("ପ", "ପଂ", "ଂ"), ("ପଂ", "ପଁ", "ଁ"), ("ପ", "ପ୍", "୍"), ("ପେ", "ପୈ", "ୈ"), ("ପୋ", "ପୌ", "ୌ")
    )
    + _forms(("ପ୍ୟ", "ପୟ୍", "୍ୟ"))
    + _conjuncts("୍", "ପ୍ର", "କ୍ଷ", "ନ୍ତ", "ସ୍ତ", "ର୍କ", "ଜ୍ଞ", "ତ୍ର", "ବ୍ଦ", "ତ୍ତ", "ଷ୍ଟ"),
    level_below=(("ପ୍ୟ", "ପ", "୍ୟ"),),
)
_BENGALI = Script(
    "Bengali",
    "\u0980",
    "\u09ff",
    "bn",
    ("fonts-noto-core", "fonts-beng-extra", "fonts-lohit-beng-bengali"),
    "০১২৩৪৫৬৭৮৯",
    _marks(
        ("ক", "কি", "ি"),
        ("ক", "কু", "ু"),
        ("কু", "কূ", "ূ"),
        ("ক", "কৃ", "ৃ"),
        ("ক", "কঁ", "ঁ"),
        ("ড", "ড়", "়"),
    )
    + _marks(("য", "য়", "়"), ("ক", "কং", "ং"), ("ক", "ক্", "্"), ("কে", "কৈ", "ৈ"), ("কো", "কৌ", "ৌ"))
    + _forms(("ৎ", "ত", "ৎ"))
    + _conjuncts("্", "প্র", "ক্ষ", "ন্ত", "স্ত", "র্ক", "জ্ঞ", "ত্র", "ব্দ", "ক্য"),
)
_THAI = Script(
    "Thai",
    "\u0e00",
    "\u0e7f",
    "th",
    ("fonts-noto-core", "fonts-thai-tlwg"),
    "๐๑๒๓๔๕๖๗๘๙",
    _marks(
        ("ที", "ที่", "ี่"),
        ("ที่", "ที้", "ี้"),
        ("กิ", "กิ่", "ิ่"),
        ("กึ", "กึ่", "ึ่"),
        ("กื", "กื่", "ื่"),
        ("กั", "กั้", "ั้"),
    )
    + _marks(
        ("นำ", "น้ำ", "้ำ"),
        ("ปุ", "ปู", "ู"),
        ("ก", "ก็", "็"),
        ("ก", "ก์", "์"),
        ("เก", "แก", "แ"),
        ("ฎ", "ฏ", "ฏ"),
        ("ป", "ป่", "่"),
    ),
)
SCRIPTS: dict[str, Script] = {script.name: script for script in (_ORIYA, _BENGALI, _THAI)}


@lru_cache(maxsize=16)
def script_named(name: str) -> Script:
    """Return a script with pairs of its own, or any other of Unicode; UserError if unknown."""
    if name in SCRIPTS:
        return SCRIPTS[name]
    try:
        pattern = regex.compile(rf"[\p{{Script={name}}}&&\p{{L}}]", regex.V1)
    except regex.error:
        raise UserError(
            f"script: {name}: Unicode has no script of that name; such as "
            f"{', '.join(SCRIPTS)}, Devanagari, Tamil, Khmer"
        ) from None
    everything = "".join(map(chr, range(0x30000)))
    letters = "".join(pattern.findall(everything))[:40]
    digits = "".join(regex.findall(rf"[\p{{Script={name}}}&&\p{{Nd}}]", everything, regex.V1))
    packages = ("fonts-noto-core", "fonts-noto-extra")
    return Script(name, "", "", "", packages, digits[:10] or "0123456789", (), letters)
