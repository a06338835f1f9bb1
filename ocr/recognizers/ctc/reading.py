"""Reading with a CTC network: prepare images, run them by width, take the best class per column.

Legend: B batch, C channels, H height, W width, T output columns, K classes.
"""

from collections.abc import Sequence
from math import nan
from typing import Any, Literal

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional as F

from ocr.alphabet import BLANK, Alphabet
from ocr.bundle import Bundle
from ocr.errors import UserError
from ocr.images import Pixels, scale_to_height, to_ink, trim_rows
from ocr.recognizers.ctc.networks import CtcNetwork, build_network
from ocr.recognizers.ctc.settings import CompactSettings, CrnnSettings, MobileNetSettings
from ocr.sample import Reading
from ocr.settings import parse_settings
from ocr.text import normalise

MARGIN_PX = 4
READ_BATCH = 32


def input_width(width_px: int, columns_per_output: int) -> int:
    """Columns that a line image of this width (already at the network's height) takes: margins added, rounded up to whole outputs."""
    return -(-(width_px + 2 * MARGIN_PX) // columns_per_output) * columns_per_output


def as_line(pixels: Pixels, height_px: int) -> Pixels:
    """An image as the network gets it: its ink fills the height."""
    return scale_to_height(trim_rows(pixels), height_px)


def collate(lines: Sequence[Pixels], columns_per_output: int) -> tuple[Tensor, Tensor]:
    """Line images (uint8, equal heights) → ink [B, C, H, W] and widths [B]; beyond an image's width there is background."""
    inks = [to_ink(line) for line in lines]
    widths = [input_width(ink.shape[2], columns_per_output) for ink in inks]
    channels, height = inks[0].shape[:2]
    batch: NDArray[np.float32] = np.zeros((len(inks), channels, height, max(widths)), np.float32)
    for row, ink in zip(batch, inks, strict=True):
        row[:, :, MARGIN_PX : MARGIN_PX + ink.shape[2]] = ink
    return torch.from_numpy(batch), torch.tensor(widths)


def greedy(classes_T: Sequence[int]) -> list[int]:
    """Best-path decoding: repeats merged, then blanks dropped (Graves et al. 2006, section 3.2)."""
    previous = [BLANK, *classes_T[:-1]]
    return [index for index, before in zip(classes_T, previous, strict=True) if index not in (BLANK, before)]


class CtcRecognizer:
    """A CTC network with the alphabet it was trained for; also the live one inside training."""

    def __init__(self, network: CtcNetwork, alphabet: Alphabet, height_px: int, name: str = "ctc", device: str = "cpu") -> None:
        self.network, self.alphabet, self.height_px, self.name = network.to(device), alphabet, height_px, name
        self.device = torch.device(device)
        self.image_mode: Literal["L", "RGB"] = "L" if network.channels == 1 else "RGB"

    def read(self, images: Sequence[Pixels]) -> list[Reading]:
        """One Reading per image; images of like width share a batch."""
        return [reading for reading, _ in self.read_and_compare(images, [None] * len(images))]

    def read_and_compare(self, images: Sequence[Pixels], references: Sequence[str | None]) -> list[tuple[Reading, float]]:
        """Each image's Reading and the CTC loss of its reference; inf where the network cannot write it, nan where there is none."""
        lines = [as_line(image, self.height_px) for image in images]
        by_width = sorted(range(len(lines)), key=lambda index: lines[index].shape[1])
        found: dict[int, tuple[Reading, float]] = {}
        was_training = self.network.training
        self.network.eval()
        for start in range(0, len(by_width), READ_BATCH):
            chosen = by_width[start : start + READ_BATCH]
            found.update(zip(chosen, self._read_batch([lines[i] for i in chosen], [references[i] for i in chosen]), strict=True))
        self.network.train(was_training)
        return [found[index] for index in range(len(lines))]

    @torch.inference_mode()
    def _read_batch(self, lines: Sequence[Pixels], references: Sequence[str | None]) -> list[tuple[Reading, float]]:
        ink_BCHW, widths_B = collate(lines, self.network.columns_per_output)
        logits_TBK, lengths_B = self.network(ink_BCHW.to(self.device), widths_B.to(self.device))
        log_probs_TBK, lengths_B = logits_TBK.log_softmax(2).cpu(), lengths_B.cpu()
        paths_BT = log_probs_TBK.argmax(2).T.tolist()
        decoded = [greedy(path[:length]) for path, length in zip(paths_BT, lengths_B.tolist(), strict=True)]
        confidences = (-_ctc_losses(log_probs_TBK, lengths_B, decoded)).exp().clamp(0, 1).tolist()
        losses = [nan] * len(lines)
        if any(reference is not None for reference in references):
            losses = _ctc_losses(log_probs_TBK, lengths_B, [self.alphabet.encode_known(reference or "") for reference in references]).tolist()
        readings = [Reading(normalise(self.alphabet.decode(ids)), confidence) for ids, confidence in zip(decoded, confidences, strict=True)]
        return list(zip(readings, losses, strict=True))


def _ctc_losses(log_probs_TBK: Tensor, lengths_B: Tensor, targets: Sequence[Sequence[int]]) -> Tensor:
    flat, target_lengths = torch.tensor([i for ids in targets for i in ids], dtype=torch.long), torch.tensor([len(ids) for ids in targets])
    return F.ctc_loss(log_probs_TBK, flat, lengths_B, target_lengths, BLANK, "none")


NetworkSettings = CompactSettings | CrnnSettings | MobileNetSettings
_KINDS: dict[str, type[NetworkSettings]] = {"compact": CompactSettings, "crnn": CrnnSettings, "mobilenet_v3_crnn": MobileNetSettings}


def network_settings(values: dict[str, Any], where: str) -> NetworkSettings:
    """The settings of a CTC network from a bundle's plain values."""
    kind = values.get("kind")
    if kind not in _KINDS:
        raise UserError(f"{where}: unknown network {kind!r}; known: {', '.join(_KINDS)}")
    return parse_settings(_KINDS[str(kind)], values, where)


def load_ctc(bundle: Bundle, backend: str | None, device: str | None) -> CtcRecognizer:
    """The recogniser of a CTC bundle; UserError for a backend that it does not hold."""
    backend = backend or bundle.default_backend(device or "cpu")
    if backend not in bundle.backends:
        raise UserError(f"{bundle.path}: no backend {backend!r}; this bundle has {', '.join(bundle.backends)}")
    settings = network_settings(bundle.model, str(bundle.path))
    alphabet = Alphabet(tuple(bundle.alphabet))
    network = build_network(settings, len(alphabet))
    network.load_state_dict(bundle.weights())
    return CtcRecognizer(network.eval(), alphabet, settings.height_px, bundle.name, device or "cpu")
