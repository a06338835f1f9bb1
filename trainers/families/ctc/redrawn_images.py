"""Fresh images in every pass for samples of `on_the_fly` sources; the first pass takes those of the data set."""

from collections.abc import Sequence

from ocr.dataset.read import Dataset
from ocr.errors import UserError
from ocr.images import Pixels
from ocr.rendering.redraw import Drawer, Request
from ocr.settings import parse_settings
from ocr.sources.settings import SyntheticSettings


class FreshImages:
    """Draws a data set's `on_the_fly` samples anew; an image is a function of (source, text, index, epoch) and of the fonts."""

    def __init__(self, data: Dataset) -> None:
        self._sources = _on_the_fly(data)
        self._data, self._drawer = data, Drawer()

    def of(self, indices: Sequence[int], epoch: int) -> dict[int, Pixels]:
        """Index → its image in this pass, of those that are drawn anew; indices beyond the data set are others' (replay)."""
        own = [index for index in indices if epoch and self._sources and index < len(self._data)]
        wanted = {index: request for index in own if (request := self._request(index, epoch))}
        return (
            dict(zip(wanted, self._drawer.draw(list(wanted.values())), strict=True))
            if wanted
            else {}
        )

    def _request(self, index: int, epoch: int) -> Request | None:
        seed, _, place = self._data.ids[index].removeprefix("synthetic:").partition(":")
        settings = self._sources.get(seed)
        return (
            Request(settings, self._data.texts[index], int(place), epoch)
            if settings and place.isdecimal()
            else None
        )


def _on_the_fly(data: Dataset) -> dict[str, SyntheticSettings]:
    """Seed → source, of the sources that the data set was made of; UserError where two of them would draw each other's images."""
    found: dict[str, SyntheticSettings] = {}
    for values in data.description().get("sources", []):
        if values.get("on_the_fly"):
            known = {
                key: value for key, value in values.items() if key in SyntheticSettings.model_fields
            }
            settings = parse_settings(SyntheticSettings, known, f"{data.folder}: dataset.json")
            if str(settings.seed) in found:
                raise UserError(
                    f"{data.folder}: two on_the_fly sources have the seed {settings.seed}; give each its own"
                )
            found[str(settings.seed)] = settings
    return found
