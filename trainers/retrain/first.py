"""The first recogniser of a chain of retrainings, as its readings in the bundles of the others.

first.json in a bundle: {"model": NAME@HASH, "readings": {id: text}}, of the lines of
validation.parquet. With it the gate needs neither the first bundle nor the place where it lies.
"""

import json
from dataclasses import dataclass, replace

from ocr.bundle import Bundle
from ocr.evaluation import Evaluation
from ocr.files import read_object
from ocr.retraining import FIRST


@dataclass(frozen=True, slots=True)
class First:
    """The first model's id and its reading of each validation line."""

    model: str
    readings: dict[str, str]

    def on(self, evaluation: Evaluation) -> Evaluation:
        """Return these lines as the first model read them."""
        lines = (replace(line, reading=self.readings[line.id]) for line in evaluation.lines)
        return Evaluation(tuple(lines))

    def to_bytes(self) -> bytes:
        """Return first.json."""
        value = {"model": self.model, "readings": self.readings}
        return json.dumps(value, ensure_ascii=False).encode()


def first_of(bundle: Bundle, evaluation: Evaluation) -> First:
    """Return the first of a bundle's chain; `evaluation` is the bundle's own.

    It is the bundle itself where it has no first, and where another data set than its own
    validates (which is printed, as the chain begins anew).
    """
    own = First(id_of(bundle), {line.id: line.reading for line in evaluation.lines})
    stored = read_object(bundle.path / FIRST)
    if stored is None:
        return own
    first = First(str(stored["model"]), dict(stored["readings"]))
    if not own.readings.keys() <= first.readings.keys():
        print(
            f"{first.model} did not read these validation lines; what may be forgotten counts "
            f"from {own.model}",
            flush=True,
        )
        return own
    return first


def id_of(bundle: Bundle) -> str:
    """Return NAME@HASH, as an endpoint names a bundle."""
    return f"{bundle.name}@{bundle.sha256[:12]}"
