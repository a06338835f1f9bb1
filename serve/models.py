"""The models that an endpoint can serve: bundles that never change, each under NAME@HASH.

models/NAME@HASH/        a bundle; the name ends with a part of its content's hash
"""

import logging
import shutil
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
import pyarrow.fs
from PIL import Image, ImageDraw

from ocr.bundle import MANIFEST, Bundle, open_bundle
from ocr.errors import UserError
from ocr.files import cache_dir, locked
from ocr.images import Pixels
from ocr.recognizers.factory import load_all
from ocr.recognizers.recognizer import Recognizer
from serve.journal import Journal
from serve.store import Store

_log = logging.getLogger("ray.serve")
_MOST_VOTERS = 4
_CANARIES = (("0123456789", 40), ("lipi", 24), ("a longer line of text, as wide as lines are", 32))


@dataclass(frozen=True, slots=True)
class Loaded:
    """A recogniser that is ready to read, and the name that its answers carry."""

    model: str
    recognizer: Recognizer


class Models:
    """Bundles in a store (a folder or s3://…), with the journal beside them.

    Bundles of a bucket are copied to a folder of this machine before they are opened.
    """

    def __init__(self, location: str) -> None:
        self.store = Store(location)
        self.journal = Journal(self.store)

    def add(self, bundle: str) -> str:
        """Store a bundle (a folder, a shipped recogniser's name, or several by commas, which vote).

        Returns its id NAME@HASH. Raises UserError where it is not a bundle, or a voter comes twice.
        """
        bundles = [open_bundle(path) for path in bundle.split(",")]
        require_voters([_id_of(each) for each in bundles])
        return ",".join(map(self._add, bundles))

    def ids(self) -> list[str]:
        """Return the ids of the bundles that are stored whole."""
        folders = self.store.folders("models")
        return [name for name in folders if MANIFEST in self.store.names(f"models/{name}")]

    def path(self, id: str) -> Path:
        """Return a bundle's folder on this machine, its files verified.

        Raises UserError where it is missing or not what its id says.
        """
        if "/" in id or id not in self.store.folders("models"):
            raise self._unknown(id)
        if not self.store.is_local:
            return self._fetched(id)
        folder = Path(f"{self.store.root}/models/{id}")
        _require_is(folder, id)
        return folder

    def address(self, id: str) -> str:
        """Return where a bundle is for every machine: its verified folder, or its address.

        Raises UserError where it is missing.
        """
        if self.store.is_local:
            return str(self.path(id))
        if id not in self.ids():
            raise self._unknown(id)
        return f"{self.store.location}/models/{id}"

    def load(self, bundle: str, backend: str | None, device: str) -> Loaded:
        """Open and verify a bundle, and read the canaries; UserError where any of it fails."""
        paths = ",".join(str(self.path(id)) for id in bundle.split(","))
        recognizer = load_all(paths, backend, device)
        require_reads(recognizer, bundle)
        return Loaded(bundle, recognizer)

    def card(self, id: str) -> dict[str, Any]:
        """Return a bundle's family, the CER of each backend, and its training data."""
        description = self.store.object(f"models/{id}/bundle.json") or {}
        return {
            "family": description.get("family"),
            "cer": description.get("backends", {}),
            "card": description.get("card", {}),
        }

    def promote(
        self,
        bundle: str,
        why: str = "",
        what: Literal["promote", "traffic"] = "promote",
        **more: Any,
    ) -> str:
        """Ask, by an entry in the journal, for another bundle or a share of the requests for it.

        The one actor acts on it. Returns the entry's id; UserError for an id that is not stored.
        """
        known, voters = self.ids(), bundle.split(",")
        for id in voters:
            if id not in known:
                raise self._unknown(id)
        require_voters(voters)
        return self.journal.append(what=what, bundle=bundle, why=why, **more)

    def _unknown(self, id: str) -> UserError:
        return UserError(f"{id}: no such model here; there are: {', '.join(self.ids()) or 'none'}")

    def _add(self, bundle: Bundle) -> str:
        id = _id_of(bundle)
        if id in self.ids():
            return id
        for name in bundle.names():
            self.store.put(f"models/{id}/{name}", (bundle.path / name).read_bytes())
        # the manifest is written last: with it the bundle is whole
        self.store.put(f"models/{id}/{MANIFEST}", (bundle.path / MANIFEST).read_bytes())
        return id

    def _fetched(self, id: str) -> Path:
        """Return this machine's copy of a bundle in a bucket, fetched once and verified.

        Replicas of one machine wait for the first; a damaged copy is fetched again.
        """
        folder = cache_dir() / "served" / id  # of this user alone
        folder.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
        with locked(folder.parent / f".{id}.lock"):
            try:
                _require_is(folder, id)
            except UserError as problem:
                if folder.exists():
                    _log.warning("%s; fetched again", problem)
                self._fetch(id, folder)
        return folder

    def _fetch(self, id: str, folder: Path) -> None:
        making = Path(tempfile.mkdtemp(prefix=".", dir=folder.parent))
        remote, local = f"{self.store.root}/models/{id}", pyarrow.fs.LocalFileSystem()
        try:
            pyarrow.fs.copy_files(remote, str(making), self.store.files, local)
            try:
                _require_is(making, id)
            except UserError as problem:
                raise UserError(f"{self.store.location}/models/{id}: {problem}") from None
            shutil.rmtree(folder, ignore_errors=True)
            making.rename(folder)
        finally:
            shutil.rmtree(making, ignore_errors=True)


class BadVote(UserError):
    """Models that cannot vote together."""


def require_voters(ids: Sequence[str]) -> None:
    """Raise BadVote unless these are a few models, each once: every one reads every image."""
    if len(set(ids)) < len(ids):
        twice = next(id for id in ids if ids.count(id) > 1)
        raise BadVote(f"{twice}: named {ids.count(twice)} times; a model votes once")
    if len(ids) > _MOST_VOTERS:
        raise BadVote(f"expected at most {_MOST_VOTERS} models that vote together, got {len(ids)}")


def _require_is(folder: Path, id: str) -> None:
    """Raise UserError unless the folder holds this bundle, every file as it was written."""
    bundle = open_bundle(folder)
    if _id_of(bundle) != id:
        raise UserError(f"{folder}: holds {_id_of(bundle)}; add that bundle under its own id")


def require_reads(recognizer: Recognizer, bundle: str) -> None:
    """Raise UserError unless the canaries (rendered lines) read with finite confidences.

    Each must also read alone as it reads in a batch.
    """
    canaries = [_rendered(text, height, recognizer.image_mode) for text, height in _CANARIES]
    try:
        together = recognizer.read(canaries)
        alone = [recognizer.read([canary])[0] for canary in canaries]
    except Exception as problem:
        why = f"{type(problem).__name__}: {problem}"
        raise UserError(f"{bundle}: does not read: {why}") from problem
    confidences = [reading.confidence for reading in (*together, *alone)]
    if len(together) != len(canaries) or not all(0 <= value <= 1 for value in confidences):
        raise UserError(f"{bundle}: reads, but without one confidence in [0, 1] for each image")
    texts = [[reading.text for reading in readings] for readings in (together, alone)]
    if texts[0] != texts[1] and recognizer.image_mode == "L":
        raise UserError(f"{bundle}: reads an image differently in a batch than alone")


def _id_of(bundle: Bundle) -> str:
    return f"{bundle.name}@{bundle.sha256[:12]}"


def _rendered(text: str, height: int, mode: str) -> Pixels:
    image = Image.new(mode, (height * len(text) // 2 + height, height), "white")
    corner = (height // 2, height // 8)
    ImageDraw.Draw(image).text(corner, text, fill="black", font_size=height * 0.7)
    return np.asarray(image)
