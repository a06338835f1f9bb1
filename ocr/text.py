"""One Unicode normalisation for labels and readings, and what counts as one written unit."""

import unicodedata

import regex

_THAI_SARA_AM = regex.compile("\u0e4d([\u0e48-\u0e4b]?)\u0e32|([\u0e48-\u0e4b])\u0e4d\u0e32")
_BANGLA_KHANDA_TA = regex.compile("\u09a4\u09cd\u200d")
_JOINER_AT_TOKEN_END = regex.compile("[\u200c\u200d]+(?=[\\s\x1c-\x1f]|$)")
_WHITE_SPACE = regex.compile(r"[\s\x1c-\x1f]+")
_LINE_BREAKS = frozenset("\n\v\f\r\x1c\x1d\x1e\x85\u2028\u2029")
_BYTE_ORDER_MARK = "\ufeff"


def normalise(text: str) -> str:
    """The one spelling of a text: NFC, one SARA AM, one khanda ta, no joiner at a token's end, single spaces, lines apart by one line feed.

    NFC and not NFKC, which would split the Thai SARA AM (U+0E33). ZWJ and ZWNJ inside a token choose between two
    pictures and stay; at its end nothing is drawn differently. Idempotent.
    """
    text = unicodedata.normalize("NFC", text.replace(_BYTE_ORDER_MARK, ""))
    text = _THAI_SARA_AM.sub(lambda found: (found[1] or found[2] or "") + "\u0e33", text)
    text = _BANGLA_KHANDA_TA.sub("\u09ce", text)
    text = _JOINER_AT_TOKEN_END.sub("", text)
    return unicodedata.normalize("NFC", _WHITE_SPACE.sub(_one_space, text.strip()))


def in_one_line(text: str) -> str:
    """A normalised text with its lines side by side, as a line recogniser sees it."""
    return text.replace("\n", " ")


def graphemes(text: str) -> list[str]:
    """Extended grapheme clusters (UAX #29, Indic conjuncts kept whole): what a reader calls one letter."""
    return regex.findall(r"\X", text)


def describe_character(character: str) -> str:
    """`U+0964 DEVANAGARI DANDA`: the code point and its Unicode name."""
    return f"U+{ord(character):04X} {unicodedata.name(character, 'unnamed')}"


def _one_space(found: "regex.Match[str]") -> str:
    return " " if _LINE_BREAKS.isdisjoint(found[0]) else "\n"
