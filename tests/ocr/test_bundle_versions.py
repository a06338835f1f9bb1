"""Bundles of other versions, and damaged ones: one message with what to do, never a traceback."""

import gzip
import hashlib
import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from ocr.bundle import LANGUAGE_MODEL, SHIPPED, open_bundle
from ocr.errors import UserError
from ocr.recognizers.factory import load
from ocr.version import VERSION
from tests.support.bombs import pixel_bomb
from tests.support.commands import assert_refused, call


def sealed(folder: Path) -> None:
    """Write the manifest for the files as they are now."""
    names = [file.name for file in folder.iterdir() if file.name != "manifest.json"]
    hashes = {name: hashlib.sha256((folder / name).read_bytes()).hexdigest() for name in names}
    (folder / "manifest.json").write_text(json.dumps(hashes))


@pytest.fixture
def bundle(tmp_path: Path) -> Path:
    return Path(shutil.copytree(SHIPPED / "odia", tmp_path / "bundle"))


def described(change: Callable[[dict[str, Any]], Any]) -> Callable[[Path], None]:
    def apply(folder: Path) -> None:
        values = json.loads((folder / "bundle.json").read_text(encoding="utf-8"))
        change(values)
        (folder / "bundle.json").write_text(json.dumps(values), encoding="utf-8")

    return apply


def written(name: str, content: bytes) -> Callable[[Path], None]:
    return lambda folder: (folder / name).write_bytes(content) and None


CASES: dict[str, tuple[Callable[[Path], None], tuple[str, ...]]] = {
    "newer format": (
        described(lambda values: values.update(format=2)),
        ("has format 2", "reads format 1", "update lipi-ocr"),
    ),
    "older format": (
        described(lambda values: values.update(format=0)),
        ("has format 0", "export the bundle again with this version"),
    ),
    "no format": (described(lambda values: values.pop("format")), ("names no format",)),
    "format of words": (
        described(lambda values: values.update(format="x")),
        ("has format 'x'", "export the bundle again"),
    ),
    "unknown key": (
        described(lambda values: values.update(languages=["or"])),
        ("unknown key languages", "another version", "update lipi-ocr"),
    ),
    "missing key": (
        described(lambda values: values.pop("alphabet")),
        ("alphabet is missing", "another version"),
    ),
    "wrong kind": (
        described(lambda values: values.update(alphabet="abc")),
        ("alphabet: expected a list, got str",),
    ),
    "unknown setting of the network": (
        described(lambda values: values["model"].update(mood=1)),
        ("mood: unknown setting", "another version"),
    ),
    "unknown network": (
        described(lambda values: values["model"].update(kind="mamba")),
        ("unknown network 'mamba'", "another version"),
    ),
    "unknown family": (
        described(lambda values: values.update(family="gan")),
        ("got 'gan'", "update lipi-ocr"),
    ),
    "unknown decoding": (
        described(lambda values: values["decoding"].update(mood=1)),
        ("mood: unknown setting", "another version"),
    ),
    "unknown calibration": (
        described(lambda values: values["decoding"].update(calibration={"mood": 1})),
        ("bundle.json: cannot be read", "another version"),
    ),
    "no description": (lambda folder: (folder / "bundle.json").unlink(), ("bundle.json: missing",)),
    "description of a list": (written("bundle.json", b"[]"), ("expected a JSON object, got list",)),
    "torn description": (written("bundle.json", b'{"format": 1,'), ("bundle.json", "damaged")),
    "description of bytes": (written("bundle.json", b"\xff\xfe\x00"), ("bundle.json", "damaged")),
    "no onnx": (
        lambda folder: (folder / "onnx-int8.onnx").unlink(),
        ("onnx-int8.onnx is missing",),
    ),
    "damaged onnx": (written("onnx-int8.onnx", b"x" * 50), ("onnx-int8.onnx: cannot be read",)),
}
PARTS = {
    "no gzip": b"plain text",
    "torn gzip": gzip.compress(b"5\na\t3\nb\t4" * 50)[:-9],
    "empty": b"",
    "no numbers": gzip.compress(b"five\na\tb"),
    "no UTF-8": gzip.compress(b"5\n\xff\t3"),
    "other lines": gzip.compress(b"5\na 3\nb 4"),
}


def refusal(path: Path) -> str:
    with pytest.raises(UserError) as caught:
        load(path)
    message = str(caught.value)
    assert str(path) in message and "Traceback" not in message
    return message


@pytest.mark.parametrize("name", CASES)
def test_a_bundle_of_another_version_or_a_damaged_one_is_one_message(
    name: str, bundle: Path
) -> None:
    change, says = CASES[name]
    change(bundle)
    sealed(bundle)
    message = refusal(bundle)
    assert all(part in message for part in says), message
    if "another version" in says:
        assert f"than this one ({VERSION})" in message


@pytest.mark.parametrize("name", PARTS)
def test_a_damaged_language_model_is_named(name: str, bundle: Path) -> None:
    assert (bundle / LANGUAGE_MODEL).is_file()
    (bundle / LANGUAGE_MODEL).write_bytes(PARTS[name])
    assert "its SHA-256 differs" in refusal(bundle)
    sealed(bundle)
    message = refusal(bundle)
    assert f"{LANGUAGE_MODEL}: cannot be read" in message and "it is damaged, or" in message
    (bundle / LANGUAGE_MODEL).unlink()
    sealed(bundle)
    assert f"{LANGUAGE_MODEL} is missing" in refusal(bundle)


@pytest.mark.parametrize("content", [b"[]", b"", b"{", b'"odia"'])
def test_a_damaged_manifest_is_named(content: bytes, bundle: Path) -> None:
    (bundle / "manifest.json").write_bytes(content)
    with pytest.raises(UserError, match=r"manifest\.json.*damaged"):
        open_bundle(bundle)


def test_the_script_prints_the_message_and_nothing_else(bundle: Path, tmp_path: Path) -> None:
    described(lambda values: values.update(format=2))(bundle)
    sealed(bundle)
    (tmp_path / "a.png").write_bytes(pixel_bomb(100, 40))
    assert_refused(call("read", bundle, tmp_path / "a.png"), "has format 2", "update lipi-ocr")
