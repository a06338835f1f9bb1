"""The bundle that leaves training and enters serving: a folder with a hash of every file.

bundle.json           family, name, network settings, alphabet, decoding, backends with CER, card
weights.safetensors   the torch backend
onnx-….onnx           the ONNX backends, where they were exported
adapter_model.safetensors, adapter_config.json
                      a vision-language model's adapter; a merged model is stored whole, as
                      transformers saves it
README.md             the model card
language_model.txt.gz, lexicon.txt.gz, entries.txt
                      data of decoding, where it uses them
manifest.json         SHA-256 of each file, written last

A bundle may come from a stranger: only files that the manifest lists are read, each a plain file
in this folder, and what is compressed is unpacked up to a bound.
"""

import hashlib
import re
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import MISSING, asdict, dataclass, field, fields
from pathlib import Path
from typing import TYPE_CHECKING, Any, get_origin, get_type_hints

from ocr.errors import UserError, first_line
from ocr.files import read_json, replaced_folder, sha256_of, sync, write_json
from ocr.mirror import fetched
from ocr.version import VERSION

if TYPE_CHECKING:
    from torch import Tensor

FORMAT = 1
WEIGHTS, DESCRIPTION, MANIFEST = "weights.safetensors", "bundle.json", "manifest.json"
SHIPPED = Path(__file__).parent / "assets" / "recognisers"
_NAME = re.compile(r"\w[\w. -]{0,199}")  # it becomes the name of a folder
_SHA256 = re.compile(r"[0-9a-f]{64}")
LANGUAGE_MODEL, LEXICON, ENTRIES = "language_model.txt.gz", "lexicon.txt.gz", "entries.txt"


@dataclass(frozen=True, slots=True)
class Bundle:
    """An opened bundle.

    `backends` maps a backend's name to its measured CER, `defaults` a device to a backend.
    """

    path: Path
    family: str
    name: str
    model: dict[str, Any]
    alphabet: list[str]
    backends: dict[str, float]
    defaults: dict[str, str]
    decoding: dict[str, Any] = field(default_factory=dict)
    card: dict[str, Any] = field(default_factory=dict)

    def default_backend(self, device: str) -> str:
        """Return the backend that reads on this kind of device (`cpu`, `cuda`, `cuda:1` …)."""
        return self.defaults.get(device.partition(":")[0], "torch")

    @property
    def sha256(self) -> str:
        """The SHA-256 of the manifest, and so of the whole content."""
        return sha256_of(self.path / MANIFEST)

    def names(self) -> list[str]:
        """Return the names of all files but the manifest."""
        return sorted(_manifest(self.path))

    def read(self, name: str) -> bytes:
        """Return the content of one file; UserError where the bundle has no file of that name."""
        if name not in self.names():
            raise UserError(
                f"{self.path}: {name} is missing, but the bundle needs it; export the bundle again"
            )
        return (self.path / name).read_bytes()

    def files(self) -> dict[str, bytes]:
        """Return every file by name but for the description and the manifest."""
        return {
            name: (self.path / name).read_bytes() for name in self.names() if name != DESCRIPTION
        }

    def weights(self) -> "dict[str, Tensor]":
        """Return the torch backend's tensors by name."""
        from safetensors.torch import load

        return load(self.read(WEIGHTS))


def weights_file(weights: "Mapping[str, Tensor]") -> bytes:
    """Return the content of weights.safetensors."""
    from safetensors.torch import save

    return save({name: tensor.detach().cpu().contiguous() for name, tensor in weights.items()})


def write_bundle(bundle: Bundle, files: Mapping[str, bytes], prepared: Path | None = None) -> None:
    """Write the folder `bundle.path` whole: its description, `files`, and the folder `prepared`.

    `prepared` is moved, not copied. Files given as bytes are hashed in memory, so that damage by a
    disk is noticed.
    """
    with replaced_folder(bundle.path) as making:
        if prepared:
            prepared.replace(making)  # over the empty folder
        for name, content in files.items():
            (making / name).write_bytes(content)
        description = {"format": FORMAT, **asdict(bundle)}
        del description["path"]
        write_json(making / DESCRIPTION, description)
        others = sorted(
            file.name for file in making.iterdir() if file.name not in (*files, MANIFEST)
        )
        hashes = {
            **{name: hashlib.sha256(content).hexdigest() for name, content in files.items()},
            **{name: sha256_of(making / name) for name in others},
        }
        for name in hashes:
            sync(making / name)
        write_json(making / MANIFEST, hashes)


def shipped_names() -> list[str]:
    """Return the names of the recognisers that ship."""
    return (
        sorted(folder.name for folder in SHIPPED.iterdir() if (folder / MANIFEST).is_file())
        if SHIPPED.is_dir()
        else []
    )


def _or_shipped() -> str:
    return f", or one that ships: {', '.join(shipped_names())}" if shipped_names() else ""


def open_bundle(path: str | Path) -> Bundle:
    """Open and verify a bundle, also in a bucket, or a shipped recogniser by its name (odia).

    UserError names the file that is missing, damaged or from a newer version.
    """
    path = fetched(path)
    path = SHIPPED / path if str(path) in shipped_names() and not path.exists() else path
    if not (path / MANIFEST).is_file():
        why = f"{MANIFEST} is missing" if path.exists() else "there is no such folder"
        such = f"a folder such as runs/odia-ctc/bundle{_or_shipped()}"
        name = path / "bundle" if (path / "bundle").is_dir() else such
        raise UserError(f"{path}: expected a bundle, but {why}; name {name}")
    manifest, description = _manifest(path), _object(path / DESCRIPTION)
    for name, expected in manifest.items():
        if not (path / name).is_file() or sha256_of(path / name) != expected:
            raise UserError(
                f"{path / name}: missing or not the file that was written (its SHA-256 "
                "differs); copy the bundle again, or export it again"
            )
    return Bundle(path=path, **_of_this_version(description, path / DESCRIPTION))


def _manifest(path: Path) -> dict[str, str]:
    """Return the SHA-256 of each file by its name; UserError for a name that is a path, or a link.

    A name from a stranger is not opened before this.
    """
    file = path / MANIFEST
    found = _object(file)
    for name, sha256 in found.items():
        is_path = Path(name).name != name or "\\" in name or "\0" in name
        if is_path or name in ("", "..", MANIFEST):
            raise _damaged(file, f"{name[:80]!r} is not the name of a file in it")
        if not isinstance(sha256, str) or not _SHA256.fullmatch(sha256):
            raise _damaged(file, f"{name[:80]!r} has no SHA-256")
        if (path / name).is_symlink():
            raise UserError(f"{path / name}: a link; copy the bundle with the files themselves")
    if DESCRIPTION not in found:
        raise UserError(
            f"{path / DESCRIPTION}: missing, or not listed in {MANIFEST}, so the bundle is not "
            "whole; copy or export it again"
        )
    return found


def _damaged(file: Path, why: object) -> UserError:
    return UserError(f"{file}: the bundle is damaged: {why}; copy it or export it again")


def _object(file: Path) -> dict[str, Any]:
    if not file.is_file():
        raise UserError(f"{file}: missing, so the bundle is not whole; copy or export it again")
    try:
        value = read_json(file)
    except (OSError, ValueError, RecursionError) as problem:
        raise _damaged(file, problem) from None
    if not isinstance(value, dict):
        raise _damaged(file, f"expected a JSON object, got {type(value).__name__}")
    return value


def _of_this_version(description: dict[str, Any], file: Path) -> dict[str, Any]:
    """Return the values of a Bundle; UserError for another format, an unknown or a missing key."""
    values = dict(description)
    found = values.pop("format", None)
    if found != FORMAT:
        is_newer = isinstance(found, int) and found > FORMAT
        named = "names no format" if found is None else f"has format {found!r}"
        remedy = "update lipi-ocr" if is_newer else "export the bundle again with this version"
        raise UserError(
            f"{file}: {named}; this version of lipi-ocr ({VERSION}) reads format {FORMAT}: {remedy}"
        )
    known = {each.name: each for each in fields(Bundle) if each.name != "path"}
    if unknown := sorted(set(values) - set(known)):
        raise UserError(f"{file}: unknown key {', '.join(unknown)}; {OTHER_VERSION}")
    needed = {name for name, each in known.items() if each.default_factory is MISSING}
    if missing := sorted(needed - set(values)):
        raise UserError(f"{file}: {', '.join(missing)} is missing; {OTHER_VERSION}")
    _require_types(values, file)
    if not _NAME.fullmatch(values["name"]):
        raise UserError(
            f"{file}: name: expected letters, digits, '.', '_', '-' and spaces, at most 200, got "
            f"{values['name'][:80]!r}; export the bundle under another name"
        )
    return values


def _require_types(values: dict[str, Any], file: Path) -> None:
    from pydantic import TypeAdapter, ValidationError

    hints = get_type_hints(Bundle)
    for name, value in values.items():
        kind = get_origin(hints[name]) or hints[name]
        if not isinstance(value, kind):
            found = type(value).__name__
            raise UserError(f"{file}: {name}: expected a {kind.__name__}, got {found}")
        try:
            TypeAdapter(hints[name]).validate_python(value, strict=True)
        except ValidationError as problem:
            first = problem.errors()[0]
            place = ".".join(map(str, (name, *first["loc"])))
            raise _damaged(file, f"{place}: {first['msg']}") from None


OTHER_VERSION = (
    f"it is of another version of lipi-ocr than this one ({VERSION}): update lipi-ocr, or "
    "export the bundle again with this version"
)


@contextmanager
def opening(file: Path) -> Iterator[None]:
    """Turn what a damaged part of a bundle, or one of another version, raises into one message."""
    try:
        yield
    except UserError as problem:
        raise UserError(f"{problem}; {OTHER_VERSION}") from None
    except MemoryError:
        raise
    except Exception as problem:  # noqa: BLE001  parsers of damaged files raise anything
        raise UserError(
            f"{file}: cannot be read: {type(problem).__name__}: {first_line(problem)[:200]}; "
            f"it is damaged, or {OTHER_VERSION.removeprefix('it is ')}"
        ) from None
