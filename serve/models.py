"""The models that an endpoint can serve: bundles that never change, each under NAME@HASH.

models/NAME@HASH/        a bundle; the name ends with a part of its content's hash
"""

import json
import shutil
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
import pyarrow.fs
from PIL import Image, ImageDraw

from ocr.bundle import MANIFEST, Bundle, open_bundle
from ocr.errors import UserError
from ocr.images import Pixels
from ocr.recognizers.factory import load_all
from ocr.recognizers.recognizer import Recognizer
from serve.journal import Journal
from serve.store import Store

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

        Returns its id NAME@HASH. Raises UserError where it is not a bundle.
        """
        return ",".join(self._add(open_bundle(Path(path))) for path in bundle.split(","))

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
        local = Path(f"{self.store.root}/models/{id}")
        folder = local if self.store.is_local else self._fetched(id)
        bundle = open_bundle(folder)
        if _id_of(bundle) != id:
            raise UserError(f"{folder}: holds {_id_of(bundle)}; add that bundle under its own id")
        return folder

    def load(self, bundle: str, backend: str | None, device: str) -> Loaded:
        """Open and verify a bundle, and read the canaries; UserError where any of it fails."""
        paths = ",".join(str(self.path(id)) for id in bundle.split(","))
        recognizer = load_all(paths, backend, device)
        require_reads(recognizer, bundle)
        return Loaded(bundle, recognizer)

    def card(self, id: str) -> dict[str, Any]:
        """Return a bundle's family, the CER of each backend, and its training data."""
        description = json.loads(self.store.get(f"models/{id}/bundle.json") or b"{}")
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
        known = self.ids()
        for id in bundle.split(","):
            if id not in known:
                raise self._unknown(id)
        return self.journal.append(what=what, bundle=bundle, why=why, **more)

    def _unknown(self, id: str) -> UserError:
        return UserError(f"{id}: no such model here; there are: {', '.join(self.ids()) or 'none'}")

    def _add(self, bundle: Bundle) -> str:
        id = _id_of(bundle)
        if id in self.ids():
            return id
        files = sorted(file for file in bundle.path.iterdir() if file.is_file())
        for file in (file for file in files if file.name != MANIFEST):
            self.store.put(f"models/{id}/{file.name}", file.read_bytes())
        # the manifest is written last: with it the bundle is whole
        self.store.put(f"models/{id}/{MANIFEST}", (bundle.path / MANIFEST).read_bytes())
        return id

    def _fetched(self, id: str) -> Path:
        folder = Path(tempfile.gettempdir()) / "lipi-models" / id
        if not (folder / MANIFEST).is_file():
            folder.parent.mkdir(parents=True, exist_ok=True)
            making = Path(tempfile.mkdtemp(dir=folder.parent))
            remote, local = f"{self.store.root}/models/{id}", pyarrow.fs.LocalFileSystem()
            pyarrow.fs.copy_files(remote, str(making), self.store.files, local)
            shutil.rmtree(folder, ignore_errors=True)
            making.rename(folder)
        return folder


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
