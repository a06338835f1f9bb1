"""The values that travel: a Sample enters, a Skip says why one did not, a Reading comes out."""

from dataclasses import dataclass, field
from typing import Literal

Level = Literal["character", "word", "line", "paragraph", "page"]


@dataclass(frozen=True, slots=True)
class Sample:
    """One image with its text.

    `image` is an encoded file (PNG, JPEG, WebP …). `group` names what a split must keep together
    (page, writer, face …), as `key=value` pairs. `source` says where the sample came from.
    `findings` are a kind and a detail each: to be counted, though the sample is kept.
    """

    id: str
    image: bytes
    text: str
    level: Level = "line"
    group: tuple[tuple[str, str], ...] = ()
    source: str = ""
    findings: tuple[tuple[str, str], ...] = ()


@dataclass(frozen=True, slots=True)
class Skip:
    """Input that a source could not turn into a Sample.

    `reason` is counted, `detail` is for the person who fixes it.
    """

    where: str
    reason: str
    detail: str = ""


@dataclass(frozen=True, slots=True)
class Reading:
    """The text that a recogniser read; `confidence` in [0, 1] estimates p(text | image).

    `tokens`: what the model was given (of CTC: output columns) and what it wrote (characters).
    """

    text: str
    confidence: float
    tokens: tuple[int, int] = field(default=(0, 0), compare=False, repr=False)
