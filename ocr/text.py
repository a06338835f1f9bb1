"""The one Unicode normalisation of labels and readings, and grapheme clusters."""

import codecs
import unicodedata

import regex

_THAI_SARA_AM = regex.compile("\u0e4d([\u0e48-\u0e4b]?)\u0e32|([\u0e48-\u0e4b])\u0e4d\u0e32")
_BANGLA_KHANDA_TA = regex.compile("\u09a4\u09cd\u200d")
_JOINER_AT_TOKEN_END = regex.compile("[\u200c\u200d]+(?=[\\s\x1c-\x1f]|$)")
_WHITE_SPACE = regex.compile(r"[\s\x1c-\x1f]+")
_LINE_BREAKS = frozenset("\n\v\f\r\x1c\x1d\x1e\x85\u2028\u2029")
_BYTE_ORDER_MARK = "\ufeff"
_PEEKED = 64  # bytes that tell an encoding


def normalise(text: str) -> str:
    """Return the one spelling of a text; idempotent.

    NFC, one SARA AM, one khanda ta, no joiner at a token's end, single spaces, lines separated by
    one line feed. Not NFKC, which would split the Thai SARA AM (U+0E33). ZWJ and ZWNJ inside a
    token choose between two looks and stay; at its end they change nothing.
    """
    text = unicodedata.normalize("NFC", text.replace(_BYTE_ORDER_MARK, ""))
    text = _THAI_SARA_AM.sub(lambda match: (match[1] or match[2] or "") + "\u0e33", text)
    text = _BANGLA_KHANDA_TA.sub("\u09ce", text)
    text = _JOINER_AT_TOKEN_END.sub("", text)
    return unicodedata.normalize("NFC", _WHITE_SPACE.sub(_one_space, text.strip()))


def encoding_of(start: bytes) -> str:
    """Return the encoding of a text file by its first bytes: UTF-8, or Windows' UTF-16.

    UTF-16 is known by its byte order mark, or by the zeros of ASCII characters.
    """
    if start[:2] in (codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE):
        return "utf-16"
    zeros = [start[side:_PEEKED:2].count(0) for side in (0, 1)]
    if min(zeros) == 0 and max(zeros) >= max(4, len(start[:_PEEKED]) // 4):
        return "utf-16-le" if zeros[1] else "utf-16-be"
    return "utf-8-sig"


def decoded(data: bytes, errors: str = "strict") -> str:
    """Return the text of a file in UTF-8 or UTF-16, without a byte order mark."""
    return data.decode(encoding_of(data), errors)


def in_one_line(text: str) -> str:
    """Return a normalised text with its lines side by side, as a line recogniser sees it."""
    return text.replace("\n", " ")


def graphemes(text: str) -> list[str]:
    """Return extended grapheme clusters (UAX #29, Indic conjuncts kept whole)."""
    return regex.findall(r"\X", text)


def describe_character(character: str) -> str:
    """Return code point and Unicode name: `U+0964 DEVANAGARI DANDA`."""
    return f"U+{ord(character):04X} {unicodedata.name(character, 'unnamed')}"


def _one_space(match: "regex.Match[str]") -> str:
    return " " if _LINE_BREAKS.isdisjoint(match[0]) else "\n"
