"""The report page: what it marks, what it survives, and that it needs nothing but itself."""

import io
import json
import re
import subprocess
import sys
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from ocr.scoring import score
from trainers.report.differences import Piece, mark
from trainers.report.formats import decimal, duration, percent, size
from trainers.report.lines import ReportLine
from trainers.report.page import verdict, write_report
from trainers.report.records import running_mean, thin

REPORT: dict[str, Any] = {
    "status": "finished",
    "run_name": "odia-ctc",
    "eval_cer": 0.0184,
    "eval_grapheme_cer": 0.0241,
    "eval_wer": 0.0746,
    "eval_exact_match": 0.931,
    "validation_samples": 2000,
    "step": 600,
    "best_step": 500,
    "max_steps": 600,
    "training_seconds": 734.6,
    "command": "python ray_jobs/train.py configs/odia_ctc.yaml",
    "config": {"run_name": "odia-ctc", "train": {"max_steps": 600}},
    "versions": {"torch": "2.13.0"},
    "data": {
        "train": {"path": "data/odia", "samples": 60000, "fingerprint": "3f2a9c"},
        "validation": {"path": "data/odia", "samples": 2000, "fingerprint": "91be07"},
        "skipped": {"image too small": 31},
        "held_out": {"faces": ["Lohit Odia"], "shared": {"texts": 0}},
        "unknown_characters": {"\u200d": 1},
    },
    "history": {
        "resumed_at": [{"step": 200, "exactness": "exact"}],
        "extended_at": [],
        "exactness": "exact",
    },
    "confusions": [["ସ୍ଥା", "ସ୍ତା", 74], ["", " ", 3]],
}


def image_bytes(format: str = "PNG") -> bytes:
    buffer = io.BytesIO()
    Image.new("L", (80, 24), 240).save(buffer, format)
    return buffer.getvalue()


def line(reference: str = "ଓଡ଼ିଆ", reading: str = "ଓଡିଆ", **changes: Any) -> ReportLine:
    values: dict[str, Any] = {
        "id": "p1#l1",
        "image": image_bytes(),
        "confidence": 0.9,
        "group": "worst",
    } | changes
    return ReportLine(reference=reference, reading=reading, **values)


def write_run(folder: Path) -> None:
    """Metrics and timings of 600 steps, with one line torn off by a kill."""
    metrics = []
    for step in range(10, 601, 10):
        evaluated = (
            {"eval_loss": 30 / step, "eval_cer": 9 / step, "eval_grapheme_cer": 9.5 / step}
            if step % 100 == 0
            else {}
        )
        metrics.append({"step": step, "loss": 30 / step, "learning_rate": 1e-3, **evaluated})
    timings = [
        {"step": 10, "samples_per_second": 250.0},
        {"event": "restart"},
        {"step": 10, "samples_per_second": 240.0},
    ]
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "metrics.jsonl").write_text(
        "".join(json.dumps(row) + "\n" for row in metrics) + '{"step": 61'
    )
    (folder / "timings.jsonl").write_text("".join(json.dumps(row) + "\n" for row in timings))


def page_of(folder: Path, report: dict[str, Any], *lines: ReportLine) -> str:
    folder.mkdir(parents=True, exist_ok=True)
    write_report(folder, report, lines)
    return (folder / "report.html").read_text(encoding="utf-8")


class Structure(HTMLParser):
    """Every tag with its attributes, and whether each opened tag was closed in order."""

    VOID = frozenset({"meta", "link", "img", "br"})

    def __init__(self, page: str) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.open: list[str] = []
        self.feed(page)

    def handle_starttag(self, tag: str, attributes: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attributes)))
        if tag not in self.VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attributes: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attributes)))

    def handle_endtag(self, tag: str) -> None:
        assert self.open and self.open.pop() == tag, f"</{tag}> closes nothing"


def test_a_missing_nukta_a_lost_letter_and_a_doubled_one_are_each_marked_where_they_are() -> None:
    reference, reading = mark("ଓଡ଼ିଆ କଟକ ଭାଷା", "ଓଡିଆ କକ ଭାଷାଷା")
    assert [(piece.kind, piece.text) for piece in reference] == [
        ("same", "ଓ"),
        ("wrong", "ଡ଼ି"),
        ("same", "ଆ କ"),
        ("missing", "ଟ"),
        ("same", "କ ଭାଷା"),
    ]
    assert [(piece.kind, piece.text) for piece in reading] == [
        ("same", "ଓ"),
        ("wrong", "ଡି"),
        ("same", "ଆ କ"),
        ("gap", ""),
        ("same", "କ ଭା"),
        ("extra", "ଷା"),
        ("same", "ଷା"),
    ]
    assert "U+0B3C ORIYA SIGN NUKTA" in reading[1].note


@pytest.mark.parametrize(
    ("reference", "reading"),
    [
        ("ଓଡ଼ିଆ ଭାଷା", "ଓଡିଆଭାଷ"),
        ("বাংলা ভাষা", "বাংলা ভাস"),
        ("ภาษาไทย", "ภาษไทยย"),
        ("କ", ""),
        ("", "କଖ"),
        ("କ ଖ", "ଗ କ ଖ ଘ"),
    ],
)
def test_as_many_clusters_are_marked_as_the_grapheme_cer_counts(
    reference: str, reading: str
) -> None:
    upper, lower = mark(reference, reading)
    marked = sum(piece.kind in ("wrong", "missing") for piece in upper) + sum(
        piece.kind == "extra" for piece in lower
    )
    assert marked == score(reference, reading).grapheme_edits


def test_two_spellings_of_one_picture_are_no_difference() -> None:
    assert mark("ଓଡ଼ିଆ", "ଓ\u0b5cିଆ") == ((Piece("same", "ଓଡ଼ିଆ"),),) * 2


def test_a_lost_space_is_shown_as_a_sign() -> None:
    assert mark("କ ଖ", "କଖ")[0][1] == Piece("missing", "␣", "not read: U+0020 SPACE")


def test_the_page_reaches_for_nothing_outside_itself(tmp_path: Path) -> None:
    write_run(tmp_path)
    page = page_of(tmp_path, REPORT, line(), line(group="random"))
    assert not re.search(r"https?://|@import|<script", page)
    for tag, attributes in Structure(page).tags:
        assert tag not in ("script", "iframe", "object", "embed", "base")
        for name in ("src", "href", "srcset", "action"):
            assert (attributes.get(name) or "#").startswith(("data:", "#")), (tag, attributes)
    assert all(address.startswith("#") for address in re.findall(r"url\(([^)]*)\)", page))
    assert "default-src 'none'" in page


def test_every_opened_tag_is_closed(tmp_path: Path) -> None:
    write_run(tmp_path)
    assert Structure(page_of(tmp_path, REPORT, line(), line(group="random", reading=""))).open == []


def test_ids_in_the_page_are_unique_and_every_reference_finds_its_own(tmp_path: Path) -> None:
    write_run(tmp_path)
    page = page_of(tmp_path, REPORT)
    ids = re.findall(r'\sid="([^"]*)"', page)
    assert len(ids) == len(set(ids)) > 0
    assert set(re.findall(r'(?:href="|url\()#([^")]*)', page)) <= set(ids)


def test_markup_in_labels_names_and_settings_is_text(tmp_path: Path) -> None:
    evil = "<script>alert('\"1\"')</script>"
    report = REPORT | {
        "run_name": evil,
        "status": evil,
        "command": evil,
        "device": evil,
        "bundle": evil,
        "config": {evil: evil},
        "versions": {evil: evil},
        "confusions": [[evil, evil, 1]],
        "data": {
            "train": {"path": evil, "samples": 1, "fingerprint": evil},
            "skipped": {evil: 1},
            "held_out": {evil: {evil: [evil]}},
            "unknown_characters": {evil: 1},
        },
        "history": {"resumed_at": [{"step": 1, "exactness": evil}], "exactness": evil},
    }
    page = page_of(
        tmp_path,
        report,
        line(evil, "କ" + evil, id=evil),
        line("କ", evil, id=evil, image=b"<script>"),
    )
    assert "<script" not in page
    assert "&lt;script&gt;" in page
    words = (
        "class title style lang src alt content name http-equiv charset href rel "
        "aria-label aria-hidden hidden"
    )
    allowed = set(words.split())
    assert {name for _, attributes in Structure(page).tags for name in attributes} <= allowed


def test_a_run_without_metrics_still_gets_its_page(tmp_path: Path) -> None:
    page = page_of(tmp_path, REPORT, line())
    assert "<svg" not in page
    assert "metrics.jsonl is missing or empty" in page
    assert "1.84%" in page


def test_empty_files_draw_nothing_and_a_torn_line_is_counted(tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    for name in ("metrics.jsonl", "timings.jsonl"):
        (tmp_path / "empty" / name).write_bytes(b"")
    assert "<svg" not in page_of(tmp_path / "empty", REPORT)
    write_run(tmp_path / "torn")
    page = page_of(tmp_path / "torn", REPORT)
    assert page.count("<svg") == 4
    assert "1 line of metrics.jsonl could not be read" in page


def test_an_empty_report_is_a_page_too(tmp_path: Path) -> None:
    page = page_of(tmp_path, {})
    assert "nothing was evaluated" in page
    assert Structure(page).open == []


def test_a_diverged_run_is_drawn_as_far_as_it_was_finite(tmp_path: Path) -> None:
    rows = [
        {"step": 1, "loss": 4.0},
        {"step": 2, "loss": float("nan"), "eval_cer": 0.0},
        {"step": 3, "loss": float("inf")},
    ]
    (tmp_path / "metrics.jsonl").write_text("\n".join(map(json.dumps, rows)))
    page = page_of(tmp_path, REPORT | {"eval_loss": float("nan"), "best_step": 2})
    assert page.count("<svg") == 2
    assert "best 0%" in page
    assert json.loads((tmp_path / "report.json").read_text())["eval_loss"] is None


def test_the_best_step_is_named_in_the_curve(tmp_path: Path) -> None:
    write_run(tmp_path)
    assert "best 1.80%" in page_of(tmp_path, REPORT)


def test_the_same_input_gives_the_same_bytes_in_another_process(tmp_path: Path) -> None:
    write_run(tmp_path / "a")
    here = page_of(tmp_path / "a", REPORT, line())
    program = (
        "import json, sys; from pathlib import Path\n"
        "from trainers.report.lines import ReportLine\n"
        "from trainers.report.page import write_report\n"
        "folder = Path(sys.argv[1]); report = json.loads((folder / 'report.json').read_text())\n"
        "image = Path(sys.argv[2]).read_bytes()\n"
        "line = ReportLine('p1#l1', image, 'ଓଡ଼ିଆ', 'ଓଡିଆ', 0.9, 'worst')\n"
        "write_report(folder, report, [line])\n"
        "assert not {'torch', 'ray'} & set(sys.modules)"
    )
    (tmp_path / "line.png").write_bytes(image_bytes())
    subprocess.run(
        [sys.executable, "-c", program, str(tmp_path / "a"), str(tmp_path / "line.png")],
        check=True,
        cwd=Path(__file__).parents[2],
    )
    assert (tmp_path / "a" / "report.html").read_text(encoding="utf-8") == here


def test_report_json_is_the_report(tmp_path: Path) -> None:
    write_report(tmp_path, REPORT | {"bundle": Path("runs/odia-ctc/bundle")}, [])
    written = (tmp_path / "report.json").read_text(encoding="utf-8")
    assert json.loads(written) == REPORT | {"bundle": "runs/odia-ctc/bundle"}
    assert "ସ୍ଥା" in written
    assert sorted(path.name for path in tmp_path.iterdir()) == ["report.html", "report.json"]


def test_what_json_cannot_hold_is_refused_and_the_old_files_stay(tmp_path: Path) -> None:
    write_report(tmp_path, REPORT, [])
    before = {path.name: path.read_bytes() for path in tmp_path.iterdir()}
    with pytest.raises(TypeError):
        write_report(tmp_path, REPORT | {"device": object()}, [])
    assert {path.name: path.read_bytes() for path in tmp_path.iterdir()} == before


def test_an_image_no_browser_shows_is_encoded_anew_and_a_damaged_one_is_named(
    tmp_path: Path,
) -> None:
    page = page_of(tmp_path, REPORT, line(image=image_bytes("TIFF")), line(image=b"not an image"))
    assert page.count('src="data:image/webp;base64,') == 1
    assert "The image cannot be shown: not a readable image</p>" in page


def test_a_line_read_right_says_so_and_an_unread_one_says_nothing(tmp_path: Path) -> None:
    page = page_of(tmp_path, REPORT, line("କଟକ", "କଟକ", group="random"), line("କଟକ", ""))
    assert "✓ exact" in page
    assert '<dt>reading</dt><dd><span class="nothing">nothing</span></dd>' in page


def test_confusions_stand_with_their_code_points(tmp_path: Path) -> None:
    page = page_of(tmp_path, REPORT)
    assert "U+0B38 U+0B4D U+0B25 U+0B3E" in page
    assert "␣" in page


@pytest.mark.parametrize(
    ("rate", "shown"),
    [
        (0.0184, "1.84%"),
        (0.931, "93.1%"),
        (0, "0%"),
        (1, "100%"),
        (0.00001, "<0.01%"),
        (0.99996, ">99.99%"),
        (0.9987, "99.87%"),
        (1.5, "150.0%"),
        (None, "–"),
        (float("nan"), "–"),
    ],
)
def test_a_rate_is_never_rounded_to_perfection(rate: float | None, shown: str) -> None:
    assert percent(rate) == shown


def test_numbers_are_short_and_keep_their_units() -> None:
    assert (decimal(0.04213), decimal(261.4), decimal(12345.6), decimal(0)) == (
        "0.0421",
        "261",
        "12,346",
        "0",
    )
    assert (duration(45), duration(734.6), duration(10_800)) == (
        ("45.0", "seconds"),
        ("12.2", "minutes"),
        ("3.00", "hours"),
    )
    assert (size(1_243_904), size(812_000), size(3_090_000_000)) == ("1.24 M", "812 k", "3.09 B")


def test_the_verdict_says_what_came_of_it() -> None:
    assert verdict(REPORT) == (
        "Finished after 600 steps in 12.2 minutes: 1.84% of the characters wrong, "
        "93.1% of 2,000 validation samples read without any error."
    )


def test_a_thinned_line_keeps_its_peaks() -> None:
    points = [(float(step), 100.0 if step == 5_003 else float(step % 7)) for step in range(10_000)]
    kept = thin(points, 600)
    assert len(kept) <= 600
    assert (5_003.0, 100.0) in kept


def test_a_running_mean_is_over_the_neighbours_there_are() -> None:
    assert running_mean([(1, 1.0), (2, 2.0), (3, 6.0), (4, 4.0)], 3) == [
        (1, 1.5),
        (2, 3.0),
        (3, 4.0),
        (4, 5.0),
    ]


def test_the_page_says_how_sure_the_recogniser_is_and_what_reads_where(tmp_path: Path) -> None:
    more = {
        "decoding": {"method": "beam"},
        "greedy_cer": 0.03,
        "backends": {"torch": 0.0184, "onnx-int8": 0.0185},
        "default_backend": {"cpu": "onnx-int8", "cuda": "torch"},
        "confidence": {
            "expected_calibration_error": 0.031,
            "reliability": [[0.4, 0.5, 10], [0.9, 0.92, 10]],
        },
    }
    write_report(tmp_path, {**REPORT, **more}, [])
    page = (tmp_path / "report.html").read_text(encoding="utf-8")
    assert (
        "by best path alone 3.00% of the characters are wrong" in page
        and "3.10% off on average" in page
    )
    assert "Right, by confidence" in page and "default on cpu" in page and "default on cuda" in page
    write_report(tmp_path, REPORT, [])
    assert "How sure it is" not in (tmp_path / "report.html").read_text(encoding="utf-8")
