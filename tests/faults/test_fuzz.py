"""Ten thousand words come out of the settings as they went in; of ten thousand damaged files every
line is read or counted.
"""

import json
import random
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import numpy as np
import pytest

from ocr.errors import UserError
from ocr.images import encode_image
from ocr.sample import Sample, Skip
from ocr.settings import Settings
from ocr.sources.settings import (
    AltoSettings,
    CorrectionsSettings,
    LabelStudioSettings,
    PaddleSettings,
    PageSettings,
    PairsSettings,
    SourceSettings,
    TableSettings,
)
from tests.ocr.sources.test_layout import WORD, alto, block, line, page_xml
from tests.ocr.test_overrides import KEYS, assert_comes_out
from tests.support.sources import read_source

WORDS_EACH = -(-10_000 // len(KEYS))
FILES_EACH = 1_250


@pytest.mark.parametrize(("kind", "values", "key", "nullable"), KEYS)
def test_ten_thousand_words_come_out_of_the_settings(
    kind: type[Settings], values: dict[str, Any], key: str, nullable: bool
) -> None:
    assert_comes_out(kind, values, key, nullable, WORDS_EACH)


def _page() -> str:
    lines = "".join(
        line(f"word {n}", attributes=f'id="l{n}" custom="readingOrder {{index:{n};}}"')
        for n in range(4)
    )
    return page_xml(lines, order='<ReadingOrder><OrderedGroup id="g"/></ReadingOrder>')


def _alto() -> str:
    return alto(block(WORD) + block(WORD + WORD).replace('ID="b"', 'ID="c"'))


def _corrections() -> str:
    value = {"image": "a.png", "text": "word", "original_text": "wird", "confidence": 0.5}
    return json.dumps(value, ensure_ascii=False)


def _label_studio() -> str:
    box = {"x": 10.0, "y": 10.0, "width": 50.0, "height": 40.0, "rotation": 0}
    results = [
        {
            "id": "1",
            "type": "rectangle",
            "value": box,
            "original_width": 100,
            "original_height": 50,
        },
        {"id": "1", "type": "textarea", "value": {**box, "text": ["word"]}},
    ]
    task = {"id": 7, "data": {"image": "a.png"}, "annotations": [{"id": 1, "result": results}]}
    return json.dumps([task])


def _detection() -> str:
    box = {"transcription": "word", "points": [[10, 10], [60, 10], [60, 30], [10, 30]]}
    return f"a.png\t{json.dumps([box, box])}\n"


FORMS: dict[str, tuple[str, Callable[[], str], Callable[[Path], SourceSettings]]] = {
    "page": (
        "a.xml",
        _page,
        lambda folder: PageSettings(format="page", path=str(folder), levels=["line"]),
    ),
    "alto": (
        "a.xml",
        _alto,
        lambda folder: AltoSettings(format="alto", path=str(folder), levels=["line"]),
    ),
    "paddle": (
        "labels.txt",
        lambda: "a.png\tword\nb.png\tକଟକ\na.png\tଓଡ଼ିଶା 12\n",
        lambda folder: PaddleSettings(format="paddle", path=str(folder / "labels.txt")),
    ),
    "detection": (
        "labels.txt",
        _detection,
        lambda folder: PaddleSettings(
            format="paddle", path=str(folder / "labels.txt"), labels="detection"
        ),
    ),
    "corrections": (
        "a.json",
        _corrections,
        lambda folder: CorrectionsSettings(format="corrections", path=str(folder)),
    ),
    "label_studio": (
        "tasks.json",
        _label_studio,
        lambda folder: LabelStudioSettings(
            format="label_studio", path=str(folder / "tasks.json"), images=str(folder)
        ),
    ),
    "table": (
        "t.csv",
        lambda: "file,text\na.png,word\nb.png,କଟକ\n",
        lambda folder: TableSettings(format="table", path=str(folder / "t.csv")),
    ),
    "pairs": (
        "a.gt.txt",
        lambda: "word",
        lambda folder: PairsSettings(format="pairs", path=str(folder)),
    ),
}
PIECES = [
    *("<", ">", "/>", "&", '"', "'", "\t", "\n", "\r\n", ",", ":", "{", "}", "[", "]", "null"),
    *("<TextLine>", "</TextLine>", '<TextLine id="x"/>', "<String/>", "<Unicode>", "&#0;", "&x;"),
    *("-1", "1e999", "NaN", "٣", "9" * 20, "10,10", "0,0 0,0", "\ufeff", "\x00", "\ud7ff", "ଁ"),
    *("a.png", "../a.png", "/etc/passwd", "b.png", "missing.png", "x" * 300, "\u200d", "\u202e"),
]


def damaged(content: bytes, chance: random.Random) -> bytes:
    """A file after one to four accidents."""
    for _ in range(chance.randint(1, 4)):
        at = chance.randrange(len(content) + 1)
        end = min(len(content), at + chance.choice([1, 2, 5, 40, 400]))
        piece = chance.choice(PIECES).encode("utf-8", "surrogatepass")
        content = chance.choice(
            [
                content[:at] + piece + content[at:],
                content[:at] + content[end:],
                content[:at] + content[at:end] * 2 + content[end:],
                content[:at] + bytes([chance.randrange(256)]) + content[at + 1 :],
                content[:end],
                content[:at] + piece + content[end:],
            ]
        )
    return content


def lines_in(content: bytes) -> int | None:
    """How many text lines a reader finds that knows nothing of ours; None where it is no XML."""
    try:
        root = ElementTree.fromstring(content)
    except (ElementTree.ParseError, ValueError, LookupError):
        return None
    local = root.tag.rpartition("}")[2]
    if local not in ("PcGts", "alto"):
        return None
    return sum(element.tag.rpartition("}")[2] == "TextLine" for element in root.iter())


@pytest.mark.parametrize("form", FORMS)
def test_damaged_files_are_read_or_counted(form: str, tmp_path: Path) -> None:
    name, whole, settings_of = FORMS[form]
    chance, ends = random.Random(f"fuzz {form}"), Counter[str]()
    for image in ("a.png", "b.png"):
        pixels = np.random.default_rng(1).integers(0, 255, (50, 100), dtype=np.uint8)
        (tmp_path / image).write_bytes(encode_image(pixels))
    content = whole().encode()
    for _ in range(FILES_EACH):
        file = damaged(content, chance)
        (tmp_path / name).write_bytes(file)
        try:
            items = list(read_source(settings_of(tmp_path)))
        except UserError:
            ends["refused"] += 1
            continue
        assert all(isinstance(item, Sample | Skip) for item in items)
        assert items or len(file.splitlines()) < 2, file  # an empty list: the job says so
        ends["kept" if any(isinstance(item, Sample) for item in items) else "counted"] += 1
        count = lines_in(file) if form in ("page", "alto") else None
        if count is not None:
            found = [item for item in items if not _is_of_the_folder(item)]
            assert len(found) == max(1, count), (file, found)
    assert sum(ends.values()) == FILES_EACH
    assert ends["kept"] and ends["counted"] + ends["refused"] > FILES_EACH / 20, ends


def _is_of_the_folder(item: Sample | Skip) -> bool:
    """Whether it is a file beside the page that no page names."""
    return isinstance(item, Skip) and item.reason.startswith("not read")
