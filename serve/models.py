"""The models an endpoint can serve: bundles that never change, and the journal of what was to be served and what came of it.

models/NAME@HASH/        a bundle; its name is a part of its content's hash
journal/…json            {"what": "deploy" | "promote" | "traffic" | "retrain", "bundle", …} from requests, and what came of them, {"what": "live" | "refused" | …, "of", …},
                         from the one actor
loaded/PROMOTION/…json   what each replica says of a promotion: {"ok", "why"}
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
from ocr.recognizers.recognizer import Recognizer, load_all
from serve.store import Store

JOURNAL = "journal"
OUTCOMES = ("live", "refused", "rolled_back")
_CANARIES = (("0123456789", 40), ("lipi", 24), ("a longer line of text, as wide as lines are", 32))


@dataclass(frozen=True, slots=True)
class Loaded:
    """A recogniser that is ready to read, and the name that its answers carry."""

    model: str
    recognizer: Recognizer


class Models:
    """In a store (a folder or s3://…); bundles of a bucket are copied to a folder of this machine before they are opened."""

    def __init__(self, location: str) -> None:
        self.store = Store(location)

    def add(self, bundle: str) -> str:
        """Keep a bundle (several by commas: they vote; or one that ships, by its name); its id NAME@HASH. UserError where it is none."""
        return ",".join(self._add(open_bundle(Path(path))) for path in bundle.split(","))

    def _add(self, bundle: Bundle) -> str:
        name = f"{bundle.name}@{bundle.sha256[:12]}"
        if name in self.ids():
            return name
        for path in sorted(
            file for file in bundle.path.iterdir() if file.is_file() and file.name != MANIFEST
        ):
            self.store.put(f"models/{name}/{path.name}", path.read_bytes())
        self.store.put(
            f"models/{name}/{MANIFEST}", (bundle.path / MANIFEST).read_bytes()
        )  # the last: with it the bundle is there
        return name

    def ids(self) -> list[str]:
        """Of the bundles that are there whole."""
        return [
            name
            for name in self.store.folders("models")
            if MANIFEST in self.store.names(f"models/{name}")
        ]

    def path(self, one: str) -> Path:
        """The folder of a bundle on this machine, opened and verified; UserError where it is missing or not what its id says."""
        if "/" in one or one not in self.store.folders("models"):
            raise UserError(
                f"{one}: no such model here; there are: {', '.join(self.ids()) or 'none'}"
            )
        folder = (
            Path(f"{self.store.root}/models/{one}") if self.store.is_local else self._fetched(one)
        )
        found = open_bundle(folder)
        if f"{found.name}@{found.sha256[:12]}" != one:
            raise UserError(
                f"{folder}: holds {found.name}@{found.sha256[:12]}; add that bundle under its own id"
            )
        return folder

    def _fetched(self, one: str) -> Path:
        folder = Path(tempfile.gettempdir()) / "lipi-models" / one
        if not (folder / MANIFEST).is_file():
            folder.parent.mkdir(parents=True, exist_ok=True)
            making = Path(tempfile.mkdtemp(dir=folder.parent))
            pyarrow.fs.copy_files(
                f"{self.store.root}/models/{one}",
                str(making),
                self.store.files,
                pyarrow.fs.LocalFileSystem(),
            )
            shutil.rmtree(folder, ignore_errors=True)
            making.rename(folder)
        return folder

    def load(self, bundle: str, backend: str | None, device: str) -> Loaded:
        """Open, verify, and read the canaries; UserError where anything of it fails."""
        recognizer = load_all(
            ",".join(str(self.path(one)) for one in bundle.split(",")), backend, device
        )
        require_reads(recognizer, bundle)
        return Loaded(bundle, recognizer)

    def card(self, one: str) -> dict[str, Any]:
        """What a bundle says of itself: its family, CER and what it was trained on."""
        description = json.loads(self.store.get(f"models/{one}/bundle.json") or b"{}")
        return {
            "family": description.get("family"),
            "cer": description.get("backends", {}),
            "card": description.get("card", {}),
        }

    def entries(self) -> list[dict[str, Any]]:
        """The journal."""
        return self.store.entries(JOURNAL)

    def promote(
        self,
        bundle: str,
        why: str = "",
        what: Literal["promote", "traffic"] = "promote",
        **more: Any,
    ) -> str:
        """Ask for another bundle, or for a share of the requests for it: an entry in the journal, on which the one actor acts. UserError for an id that is not here."""
        for one in bundle.split(","):
            if one not in self.ids():
                raise UserError(
                    f"{one}: no such model here; there are: {', '.join(self.ids()) or 'none'}"
                )
        return self.store.append(JOURNAL, {"what": what, "bundle": bundle, "why": why, **more})

    def live(self, entries: list[dict[str, Any]] | None = None) -> str | None:
        """The bundle that is served, by the journal; None where there never was one."""
        found = [
            entry["bundle"]
            for entry in (self.entries() if entries is None else entries)
            if entry["what"] == "live"
        ]
        return found[-1] if found else None

    def candidate(self, entries: list[dict[str, Any]] | None = None) -> tuple[str, float]:
        """The bundle that is tried on a share of the requests, and the share; "" and 0 where none is."""
        last: dict[str, Any] = next(
            (
                entry
                for entry in reversed(self.entries() if entries is None else entries)
                if entry["what"] == "live"
            ),
            {},
        )
        return str(last.get("candidate", "")), float(last.get("share", 0.0))

    def pending(self) -> list[dict[str, Any]]:
        """Promotions and trials that nothing came of yet, from the oldest on."""
        entries = self.entries()
        done = {entry["of"] for entry in entries if entry["what"] in OUTCOMES}
        return [
            entry
            for entry in entries
            if entry["what"] in ("promote", "traffic") and entry["id"] not in done
        ]

    def outcome(self, promotion: str) -> dict[str, Any] | None:
        """What came of a promotion; None while it is under way."""
        return next(
            (
                entry
                for entry in self.entries()
                if entry["what"] in OUTCOMES and entry["of"] == promotion
            ),
            None,
        )

    def say(self, promotion: str, replica: str, why: str | None) -> None:
        """A replica's word on a promotion: loaded, or why not."""
        self.store.put(
            f"loaded/{promotion}/{replica}.json",
            json.dumps({"ok": why is None, "why": why}).encode(),
        )

    def said(self, promotion: str) -> dict[str, str | None]:
        """By replica: None where it has loaded the promotion's bundle, else why not."""
        folder = f"loaded/{promotion}"
        return {
            name.removesuffix(".json"): json.loads(self.store.get(f"{folder}/{name}") or b"{}").get(
                "why"
            )
            for name in self.store.names(folder)
        }


def require_reads(recognizer: Recognizer, bundle: str) -> None:
    """UserError unless the canaries, drawn lines, are read with finite confidences, and each alone as among the others."""
    canaries = [_drawn(text, height, recognizer.image_mode) for text, height in _CANARIES]
    try:
        together = recognizer.read(canaries)
        alone = [recognizer.read([canary])[0] for canary in canaries]
    except Exception as problem:
        raise UserError(
            f"{bundle}: does not read: {type(problem).__name__}: {problem}"
        ) from problem
    if len(together) != len(canaries) or not all(
        0 <= reading.confidence <= 1 for reading in (*together, *alone)
    ):
        raise UserError(f"{bundle}: reads, but without one confidence in [0, 1] for each image")
    if [reading.text for reading in together] != [
        reading.text for reading in alone
    ] and recognizer.image_mode == "L":
        raise UserError(f"{bundle}: reads an image among others otherwise than alone")


def _drawn(text: str, height: int, mode: str) -> Pixels:
    image = Image.new(mode, (height * len(text) // 2 + height, height), "white")
    ImageDraw.Draw(image).text(
        (height // 2, height // 8), text, fill="black", font_size=height * 0.7
    )
    return np.asarray(image)
