"""New images in every epoch for samples of `on_the_fly` sources; epoch 0 uses the data set's."""

from collections.abc import Sequence

from ocr.dataset.read import Dataset
from ocr.errors import UserError
from ocr.images import Pixels
from ocr.rendering.redraw import RenderProcess, Request
from ocr.settings import parse_settings
from ocr.sources.settings import SyntheticSettings
from trainers.families.splits import Subset


class RedrawnImages:
    """Renders the `on_the_fly` samples among a run's training samples anew.

    An image is a function of (source, text, index, epoch) and of the fonts. `own` is the data set
    that describes the sources; replayed samples keep their images.
    """

    def __init__(self, own: Dataset, samples: Subset) -> None:
        self._sources, self._own, self._samples = _on_the_fly(own), len(own), samples
        self._process = RenderProcess()

    def of(self, indices: Sequence[int], epoch: int) -> dict[int, Pixels]:
        """Return index → image in this epoch, for those samples that are rendered anew."""
        if not epoch or not self._sources:
            return {}
        requests = {index: request for index in indices if (request := self._request(index, epoch))}
        if not requests:
            return {}
        return dict(zip(requests, self._process.render(list(requests.values())), strict=True))

    def _request(self, index: int, epoch: int) -> Request | None:
        if self._samples.indices[index] >= self._own:
            return None
        seed, _, number = self._samples.ids[index].removeprefix("synthetic:").partition(":")
        settings = self._sources.get(seed)
        if settings is None or not number.isdecimal():
            return None
        return Request(settings, self._samples.texts[index], int(number), epoch)


def _on_the_fly(data: Dataset) -> dict[str, SyntheticSettings]:
    """Return seed → source, of the sources that the data set was made of.

    Raises UserError where two of them would render each other's images.
    """
    sources: dict[str, SyntheticSettings] = {}
    for values in data.description().get("sources", []):
        if values.get("on_the_fly"):
            known = {
                key: value for key, value in values.items() if key in SyntheticSettings.model_fields
            }
            settings = parse_settings(SyntheticSettings, known, f"{data.folder}: dataset.json")
            if str(settings.seed) in sources:
                raise UserError(
                    f"{data.folder}: two on_the_fly sources have the seed {settings.seed}; "
                    "give each its own"
                )
            sources[str(settings.seed)] = settings
    return sources
