"""Uniform random numbers that depend on a key alone."""

from ocr.keyed import text_generator

_DRAWS = 32  # numbers per key; a fixed count keeps those of one setting apart from the others


class Draws:
    """Uniform numbers keyed by (seed, text, index …), used in a fixed order."""

    def __init__(self, *key: object) -> None:
        self._key = key
        self._values = iter(text_generator(*key).random(_DRAWS).tolist())

    def uniform(self, low: float = 0.0, high: float = 1.0) -> float:
        """Return the next number, in [low, high)."""
        return low + (high - low) * float(next(self._values))

    def within(self, bounds: tuple[float, float]) -> float:
        """Return the next number, in the given range."""
        return self.uniform(*bounds)

    def below(self, count: int) -> int:
        """Return the next number as an index in [0, count)."""
        return int(self.uniform(0, count))

    def chosen(self, kind: str, share: float) -> "Draws | None":
        """Return numbers of their own for a kind of effect, for a share of the keys; else None."""
        draws = Draws(*self._key, kind) if share else None
        return draws if draws and draws.uniform() < share else None

    def of(self, part: object) -> "Draws":
        """Return numbers of their own for a part of what the key names, such as a line."""
        return Draws(*self._key, part)
