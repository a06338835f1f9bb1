"""Texts of the synthetic source: words, lines or paragraphs of text files, in a fixed order."""

from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path

import regex

from ocr.errors import UserError, first_line
from ocr.keyed import digest_of, share_of
from ocr.linting import KINDS, lint
from ocr.rendering.forms import UNCUT, Forms
from ocr.rendering.scripts import JOINERS, Script, script_named
from ocr.sources.files import located
from ocr.sources.settings import SyntheticSettings
from ocr.text import decoded, normalise
from ocr.unpacking import DAMAGED, gunzipped, unxzipped

# one salt for all sources, so that disjoint ranges never share a word
_WORD_SALT = "lipi: which words"
_LATIN = frozenset("ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz")
_UNPACKED: dict[str, Callable[[bytes, int], bytes]] = {".xz": unxzipped, ".gz": gunzipped}
_MAX_UNPACKED_BYTES = 1_000_000_000
_BESIDE_LETTERS = frozenset(" 0123456789.,;:?!'\"()[]/%+-–—‘’“”…")


def select_texts(settings: SyntheticSettings) -> list[str]:
    """Return the texts of the level that the settings ask for; UserError when there are none."""
    return _words(settings) if settings.level == "word" else _lines(settings)


def _lines(settings: SyntheticSettings) -> list[str]:
    """Return distinct lines, or paragraphs of `lines` lines, of consecutive tokens.

    Each line is as long as a keyed number in `length`; lines are chosen by their hash.
    """
    script = script_named(settings.script)
    joined = {
        text for path in settings.texts for text in _paragraphs(located(path), script, settings)
    }
    low, high = settings.word_hash_range
    texts = [
        text
        for text in joined
        if low <= word_hash(text) < high
        and not any(fragment in text for fragment in settings.leave_out)
    ]
    if not texts:
        raise UserError(
            f"{', '.join(settings.texts)}: no {settings.level} of {script.name} letters, "
            f"lines {settings.length[0]} to {settings.length[1]} characters long, "
            f"hashed into [{low}, {high})"
        )
    return _mixed(_dealt(texts), script, settings)


def _mixed(lines: list[str], script: Script, settings: SyntheticSettings) -> list[str]:
    """Return `count` lines at most, with the shares of forms and of single words among them."""
    forms, words = (
        round(share * settings.count) for share in (settings.form_share, settings.word_share)
    )
    texts = lines[: max(0, settings.count - forms - words)]
    if forms:
        drawn = Forms(script, lines, settings.length[1])
        numbered = (normalise(drawn.line(settings.seed, index)) for index in range(2 * forms))
        texts += [text for text in numbered if _is_sound(text)][:forms]
    if words:
        texts += [_some_words(line) for line in lines[-words:]]
    return _dealt_each(texts) if forms or words else texts


def _some_words(line: str) -> str:
    words = line.split(" ")
    first = _between((0, len(words) - 1), "first word", line)
    return " ".join(words[first : first + _between((1, 3), "words", line)])


def _dealt_each(texts: Sequence[str]) -> list[str]:
    """Return the texts in a fixed order, repeated ones as often as they are given."""
    return [
        text
        for _, text in sorted(
            (digest_of(text, str(index), size=8), text) for index, text in enumerate(texts) if text
        )
    ]


def _paragraphs(path: Path, script: Script, settings: SyntheticSettings) -> Iterator[str]:
    lines: list[str] = []
    for line in _packed(path, settings):
        if not _is_line(line, script, settings.latin_share):
            lines = []
            continue
        lines.append(line)
        wanted = 1 if settings.level == "line" else _between(settings.lines, "lines", lines[0])
        if len(lines) == wanted:
            yield "\n".join(lines)
            lines = []


def _packed(path: Path, settings: SyntheticSettings) -> Iterator[str]:
    """Yield consecutive tokens side by side, up to a keyed length.

    A longer token, as in Thai, is cut between grapheme clusters.
    """
    line, wanted = "", 0
    for token in _read(path).split():
        wanted = wanted or _between(settings.length, "length", token)
        joined = normalise(f"{line} {token}")
        if len(joined) <= wanted:
            line = joined
            continue
        if len(line) >= settings.length[0]:
            yield line
        line, wanted = "", _between(settings.length, "length", token)
        for unit in UNCUT.findall(normalise(token)):
            if len(line) + len(unit) > wanted:
                yield line
                line = ""
            line += unit
    if len(line) >= settings.length[0]:
        yield line


def _between(bounds: tuple[int, int], *key: str) -> int:
    number = int.from_bytes(digest_of(*key, size=8), "big")
    return bounds[0] + number % (bounds[1] - bounds[0] + 1)


def _is_line(line: str, script: Script, latin_share: float) -> bool:
    """Return whether a line is letters of the script, digits and punctuation, in sound order.

    At most `latin_share` of its letters may be Latin.
    """
    letters = "".join(character for character in line if character not in _BESIDE_LETTERS)
    own = "".join(character for character in letters if character not in _LATIN)
    if len(letters) - len(own) > latin_share * len(letters):
        return False
    return bool(own) and script.holds(own) and _is_sound(line)


def _words(settings: SyntheticSettings) -> list[str]:
    """Return distinct normalised words of the script within the length and hash range.

    They are in the order of their hash. UserError when there are none.
    """
    script = script_named(settings.script)
    tokens = {word for path in settings.texts for word in _tokens(located(path))}
    fitting = {
        word
        for word in tokens
        if settings.length[0] <= len(word) <= settings.length[1] and _is_word(word, script)
    }
    fitting = {
        word for word in fitting if not any(fragment in word for fragment in settings.leave_out)
    }
    hashed = sorted((word_hash(word), word) for word in fitting)
    low, high = settings.word_hash_range
    words = [word for number, word in hashed if low <= number < high]
    if not words:
        raise UserError(
            f"{', '.join(settings.texts)}: no word of {script.name} letters, "
            f"{settings.length[0]} to {settings.length[1]} characters long, hashed into "
            f"[{low}, {high}); {len(tokens)} tokens were read"
        )
    numbers = _dealt(_numbers(script, low, high))[: round(settings.number_share * settings.count)]
    rare = _rare(words, settings.least_per_letter)
    return _dealt(
        _dealt(words)[: max(0, settings.count - len(numbers) - len(rare))] + numbers + rare
    )[: settings.count]


def _rare(words: Sequence[str], least: int) -> list[str]:
    """Return words with rare letters, repeated until each such letter has `least` images.

    A letter is rare when fewer than `least` of all words hold it.
    """
    holders: dict[str, list[str]] = {}
    for word in _dealt(words):
        for letter in set(word):
            holders.setdefault(letter, []).append(word)
    return [
        held[step % len(held)]
        for _, held in sorted(holders.items())
        if len(held) < least
        for step in range(least)
    ]


def _dealt(words: Iterable[str]) -> list[str]:
    """Return the words in a fixed order other than `word_hash`'s.

    So a smaller count is no narrower range.
    """
    return sorted(words, key=lambda word: digest_of(word, size=8))


def _numbers(script: Script, low: float, high: float) -> list[str]:
    """Return the numbers below 10,000, in the script's digits, whose hash lies in the range."""
    written = (
        str(number).translate(str.maketrans("0123456789", script.digits))
        for number in range(10_000)
    )
    return [number for number in written if low <= word_hash(number) < high]


def word_hash(word: str) -> float:
    """Return a number in [0, 1) that depends on the word alone."""
    return share_of(word, _WORD_SALT)


def _tokens(path: Path) -> Iterator[str]:
    """Yield normalised tokens between white space, without the punctuation around them."""
    for token in _read(path).split():
        yield normalise(_PUNCTUATION_AROUND.sub("", token))


_PUNCTUATION_AROUND = regex.compile(r"^[^\p{L}\p{N}\p{M}]+|[^\p{L}\p{N}\p{M}\u200c\u200d]+$")
_TWICE_REPEATED = regex.compile(r"(.)\1\1")


def _is_word(word: str, script: Script) -> bool:
    """Return whether a word has only characters of the script, in sound order."""
    letters = [character for character in word if character not in JOINERS]
    return (
        bool(letters)
        and script.holds(word)
        and not _TWICE_REPEATED.search(word)
        and _is_sound(word)
    )


def _is_sound(text: str) -> bool:
    """Return whether the linter finds no fault with the text."""
    return not any(KINDS[finding.kind].severity != "remark" for finding in lint(text))


def _read(path: Path) -> str:
    try:
        content = path.read_bytes()
        if path.suffix in _UNPACKED:
            content = _UNPACKED[path.suffix](content, _MAX_UNPACKED_BYTES)
        return decoded(bytes(content), "replace")
    except DAMAGED as problem:
        raise UserError(
            f"{path}: {first_line(problem)}; `texts` names word lists or running text"
        ) from None
