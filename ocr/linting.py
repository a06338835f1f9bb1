"""Faults of a label as it was given, before normalise() hides half of them, and their fixes.

Marks are checked by letter class in Thai and in the three blocks that share one layout (Devanagari,
Bangla, Odia). In other scripts general categories decide. A new kind of fault is one entry in
KINDS.
"""

import unicodedata
from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

import regex

from ocr.text import describe_character

Replacement = str | Callable[["regex.Match[str]"], str]

# character classes, for use between [ and ]
_VOWEL_SIGN = (
    r"\u093a\u093b\u093e-\u094c\u094e\u094f\u0955-\u0957\u0962\u0963"
    r"\u09be-\u09cc\u09d7\u09e2\u09e3"
    r"\u0b3e-\u0b4c\u0b56\u0b57\u0b62\u0b63"
)
_TAKES_NO_VOWEL_SIGN = (
    r"\u0904-\u0914\u0985-\u0994\u09ce\u0b05-\u0b14"  # independent vowels and khanda ta
)
_NUKTA, _VIRAMA, _CANDRABINDU = (
    r"\u093c\u09bc\u0b3c",
    r"\u094d\u09cd\u0b4d",
    r"\u0900\u0901\u0981\u0b01",
)
_ANUSVARA_VISARGA = r"\u0902\u0903\u0982\u0983\u0b02\u0b03"
_INDIC_LETTERS = (
    r"\u0900-\u0950\u0955-\u0963\u0971-\u097f",
    r"\u0980-\u09e3\u09f0\u09f1\u09fc-\u09fe",
    r"\u0b00-\u0b63\u0b71",
)
_INDIC = "".join(_INDIC_LETTERS)  # less the Vedic accents and dandas, which all scripts share
_THAI_BASE, _THAI_LEADING_VOWEL, _THAI_LETTER = (
    r"\u0e01-\u0e2e",
    r"\u0e40-\u0e44",
    r"\u0e01-\u0e3a\u0e40-\u0e4e",
)
# above and below
_THAI_VOWEL, _THAI_TONE, _THAI_MARK = (
    r"\u0e31\u0e34-\u0e39\u0e47",
    r"\u0e48-\u0e4b",
    r"\u0e31\u0e34-\u0e3a\u0e47-\u0e4e",
)
_JOINER, _SELECTOR, _BIDI = (
    r"\u200c\u200d",
    r"\ufe00-\ufe0f\U000e0100-\U000e01ef",
    r"\u061c\u200e\u200f\u202a-\u202e\u2066-\u2069",
)
_INVISIBLE = (
    r"\u00ad\u034f\u115f\u1160\u180e\u200b\u2060-\u2065\u206a-\u206f\u3164\uffa0\ufff9-\ufffb"
    r"\U000e0000-\U000e007f"
)
# allowed between a base and its mark
_UNSEEN = rf"[\p{{Cc}}\ufeff{_JOINER}{_SELECTOR}{_BIDI}{_INVISIBLE}]--[\s\x1c-\x1f]"

_IN_TWO_PARTS = {  # from Unicode's DoNotEmit.txt; and two SARA E look like a SARA AE
    "\u0e40\u0e40": "\u0e41",
    "\u0985\u09be": "\u0986",
    "\u098b\u09c3": "\u09e0",
    "\u098c\u09e2": "\u09e1",
    "\u0b05\u0b3e": "\u0b06",
    "\u0b0f\u0b57": "\u0b10",
    "\u0b13\u0b57": "\u0b14",
    "\u0905\u093e": "\u0906",
    "\u0909\u0941": "\u090a",
    "\u090f\u0947": "\u0910",
    "\u0905\u094b": "\u0913",
    "\u0906\u0947": "\u0913",
    "\u0905\u094c": "\u0914",
    "\u0906\u0948": "\u0914",
}
_PARTS = "|".join(_IN_TWO_PARTS)

# patterns, each opening with the character that it looks for: that keeps clean text fast
_ORPHAN = (
    rf"[\p{{M}}&&[{_INDIC}]](?<![[\p{{L}}\p{{M}}\u25cc]--[{_UNSEEN}]][{_UNSEEN}]*.)",
    rf"[{_THAI_MARK}](?<![{_THAI_BASE}\u25cc][{_THAI_MARK}[{_UNSEEN}]]*.|\u0e33[{_THAI_TONE}])",
    rf"[\p{{M}}--[{_INDIC}{_THAI_MARK}[{_UNSEEN}]]](?<![^\s[{_UNSEEN}]][{_UNSEEN}]*.)",
)
_IMPOSSIBLE_PAIR = (
    # except pairs that NFC composes
    rf"[{_VOWEL_SIGN}][{_VOWEL_SIGN}{_VIRAMA}](?<!\u09c7[\u09be\u09d7]|\u0b47[\u0b3e\u0b56\u0b57])",
    rf"(?:[{_TAKES_NO_VOWEL_SIGN}][{_VOWEL_SIGN}]|[{_THAI_LEADING_VOWEL}]{{2}})(?<!{_PARTS})",
    rf"[{_VIRAMA}][{_JOINER}]*[{_VIRAMA}{_VOWEL_SIGN}{_ANUSVARA_VISARGA}]",
    rf"[{_ANUSVARA_VISARGA}][{_VOWEL_SIGN}]",
    rf"[{_CANDRABINDU}{_ANUSVARA_VISARGA}][{_NUKTA}{_VIRAMA}]",
    rf"[{_THAI_VOWEL}]{{2}}|[{_THAI_TONE}]{{2}}|([{_NUKTA}{_CANDRABINDU}{_ANUSVARA_VISARGA}{_THAI_MARK}])\1",
)
_WRONG_ORDER = (
    rf"([{_CANDRABINDU}])([{_VOWEL_SIGN}])(?![{_VOWEL_SIGN}{_VIRAMA}])",
    rf"([{_VOWEL_SIGN}])([{_NUKTA}])",
    rf"([{_THAI_TONE}\u0e4c])([{_THAI_VOWEL}])|(\u0e33)([{_THAI_TONE}])",
)
_JOINER_AT_END = rf"[{_JOINER}]++(?=\s|$)"
_JOINER_WITH_EFFECT = (
    rf"(?<=[{_VIRAMA}])(?:\u200d|[{_JOINER}]++[\p{{L}}\p{{M}}])",
    rf"(?<=[[\p{{L}}&&[{_INDIC}]]{_NUKTA}])[{_JOINER}]++[{_VIRAMA}{_VOWEL_SIGN}]",
    # other scripts: after any letter
    rf"(?<=[[\p{{L}}\p{{M}}]--[{_INDIC}{_THAI_LETTER}[{_UNSEEN}]]])[{_JOINER}]",
    r"(?<=[\p{Extended_Pictographic}\p{Emoji_Modifier}\ufe0f])\u200d\p{Extended_Pictographic}",
)
# not Latin beside Odia, Bangla or Thai (`GSTର`), but one or two Latin letters inside an Indic word
_MIXED_SCRIPTS = (
    *(
        rf"[{letters}][{_JOINER}]*[{_INDIC}{_THAI_LETTER}](?<![{letters}])"
        for letters in (*_INDIC_LETTERS, _THAI_LETTER)
    ),
    rf"[{_INDIC}][a-zA-Z]{{1,2}}(?=[{_INDIC}])",
    *(
        rf"[\p{{L}}&&\p{{Script={one}}}][\p{{L}}&&[\p{{Latin}}\p{{Greek}}\p{{Cyrillic}}]](?<!\p{{{one}}})"
        for one in ("Latin", "Greek", "Cyrillic")
    ),
)


def _any(*patterns: str) -> "regex.Pattern[str]":
    return regex.compile(f"(?|{'|'.join(patterns)})", regex.V1)


def _not_nfc(text: str) -> bool:
    return not unicodedata.is_normalized("NFC", text)


def _mixes_digits(text: str) -> bool:
    return len({ord(digit) - unicodedata.decimal(digit) for digit in text if digit.isdecimal()}) > 1


def _white_space(match: "regex.Match[str]") -> str:
    if match[0].splitlines() == [""]:
        return "\n"
    return " " if match[0].isspace() else ""


@dataclass(frozen=True, slots=True)
class Kind:
    """A kind of fault: it lies where `pattern` matches and `is_fault` agrees.

    What `is_fault` denies for a text it denies for every part of the text.
    `replacement` is what fix() writes instead; None leaves the fault to a person.
    A remark may well be intended.
    """

    pattern: "regex.Pattern[str]"
    replacement: Replacement | None = None
    severity: Literal["fatal", "fault", "remark"] = "fault"
    is_fault: Callable[[str], bool] | None = None

    def find(self, text: str) -> list["regex.Match[str]"]:
        """Return every match of this fault in a text."""
        if self.is_fault is None:
            return list(self.pattern.finditer(text))
        if not self.is_fault(text):
            return []
        return [match for match in self.pattern.finditer(text) if self.is_fault(match[0])]


KINDS: dict[str, Kind] = {
    # half of a UTF-16 pair, which UTF-8 cannot store
    "lone surrogate": Kind(_any(r"\p{Cs}"), severity="fatal"),
    # U+0000 ends a text in C programs and is refused by databases
    "NUL": Kind(_any(r"\x00"), "", severity="fatal"),
    # a C0 control other than tab and line end, DEL or NEL
    "control character": Kind(_any(r"[\x01-\x08\x0b\x0c\x0e-\x1f\x7f\x85]"), _white_space),
    # left by a wrong decoding, often instead of a letter that the image shows
    "C1 control": Kind(_any(r"[\x80-\x84\x86-\x9f]")),
    # white space that normalise() folds into a space or a line feed
    "carriage return or tab": Kind(_any(r"\r\n?", r"\t"), _white_space),
    # U+FEFF, the first bytes of a file read as text
    "byte order mark": Kind(_any(r"\ufeff"), ""),
    # sets the direction of writing and shows nothing
    "bidi control": Kind(_any(rf"[{_BIDI}]"), ""),
    # shows nothing, so that no recogniser can read it from the image
    "invisible character": Kind(
        _any(
            rf"[{_INVISIBLE}]",
            rf"[{_SELECTOR}](?<![\p{{S}}\p{{P}}\p{{N}}\p{{Han}}].)",
        ),
        "",
    ),
    # left where an earlier decoding lost something
    "replacement character": Kind(_any(r"[\ufffc\ufffd]")),
    # no meaning in Unicode
    "unassigned code point": Kind(_any(r"\p{Cn}")),
    # means what one font says and nothing elsewhere
    "private use": Kind(_any(r"\p{Co}"), severity="remark"),
    # another spelling of what NFC writes in one way
    "not NFC": Kind(
        _any(r"\X"),
        lambda match: unicodedata.normalize("NFC", match[0]),
        is_fault=_not_nfc,
    ),
    # NIKHAHIT and SARA AA look like SARA AM
    "SARA AM in two parts": Kind(
        _any(r"\u0e4d([\u0e48-\u0e4b]?)\u0e32", r"([\u0e48-\u0e4b])\u0e4d\u0e32"), "\\1\u0e33"
    ),
    # TA, virama and ZWJ, as before Unicode 4.1
    "KHANDA TA in old spelling": Kind(_any(r"\u09a4\u09cd\u200d"), "\u09ce"),
    # two characters that look like a third, as A and the sign AA look like the letter AA
    "letter in two parts": Kind(_any(_PARTS), lambda match: _IN_TWO_PARTS[match[0]]),
    # ZWJ or ZWNJ with nothing to join
    "joiner at a token's end": Kind(_any(rf"(?!(?<=\u09a4\u09cd)\u200d){_JOINER_AT_END}"), ""),
    # ZWJ or ZWNJ inside a token where it changes nothing in the image
    "joiner out of place": Kind(
        _any(rf"(?=[{_JOINER}])(?!{_JOINER_AT_END}|{'|'.join(_JOINER_WITH_EFFECT)})."), ""
    ),
    # two signs typed in the wrong order, which look the same
    "marks in wrong order": Kind(_any(*_WRONG_ORDER), r"\2\1"),
    # two signs that the script never puts one after the other
    "impossible pair": Kind(_any(*_IMPOSSIBLE_PAIR)),
    # a mark with no letter before it that could carry it
    "orphan mark": Kind(_any(*_ORPHAN)),
    # digits of two scripts in one token
    "mixed digits": Kind(_any(r"\d\S*\d"), severity="remark", is_fault=_mixes_digits),
    # letters of two scripts in one word
    "mixed scripts": Kind(_any(*_MIXED_SCRIPTS), severity="remark"),
}


@dataclass(frozen=True, slots=True)
class Finding:
    """One fault of a label: its kind in KINDS, its start in code points, and the characters."""

    kind: str
    position: int
    detail: str


def lint(text: str) -> list[Finding]:
    """Return all faults of a label as it was given, by position."""
    findings = [
        Finding(name, match.start(), _detail(text, match))
        for name, kind in KINDS.items()
        for match in kind.find(text)
    ]
    return sorted(findings, key=lambda finding: finding.position)


def fix(text: str) -> str:
    """Return the label with every fault fixed that a rule can fix; the others stay. Idempotent."""
    while (fixed := _fix_once(text)) != text:
        text = fixed
    return text


def _fix_once(text: str) -> str:
    for kind in KINDS.values():
        if kind.replacement is not None:
            text = kind.pattern.sub(kind.replacement, text)
    return text


def _detail(text: str, match: "regex.Match[str]") -> str:
    """Return the faulty characters and the one before: `U+09BE … SIGN AA after U+0020 SPACE`."""
    before = (
        f"after {describe_character(text[match.start() - 1])}" if match.start() else "at the start"
    )
    return f"{' + '.join(map(describe_character, match[0]))}, {before}"
