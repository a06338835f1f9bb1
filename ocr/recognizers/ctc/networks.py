"""The factory of CTC networks, and the torch backend that reads with one.

Legend: B batch, C channels, H height, W width in columns, T output columns, K classes.
"""

import importlib

import numpy as np
import torch
from numpy.typing import NDArray

from ocr.recognizers.ctc.layers import CtcNetwork
from ocr.recognizers.ctc.settings import NetworkSettings


def build_network(settings: NetworkSettings, classes: int) -> CtcNetwork:
    """Return the network that the settings name, initialised from torch's global generator."""
    module, _, name = settings.network.partition(":")
    network: CtcNetwork = getattr(importlib.import_module(module), name)(settings, classes)
    return network


class TorchBackend:
    """A network on a device as a backend of CtcRecognizer.

    Reading leaves its training mode as it was.
    """

    def __init__(self, network: CtcNetwork, device: str = "cpu") -> None:
        self.network, self.device = network.to(device), torch.device(device)

    @torch.no_grad()
    def logits(
        self, ink_BCHW: NDArray[np.float32], widths_B: NDArray[np.int64]
    ) -> tuple[NDArray[np.float32], NDArray[np.int64]]:
        """Return class logits [T, B, K] and output lengths [B]."""
        was_training = self.network.training
        self.network.eval()
        logits_TBK, lengths_B = self.network(
            torch.from_numpy(ink_BCHW).to(self.device), torch.from_numpy(widths_B).to(self.device)
        )
        self.network.train(was_training)
        return logits_TBK.float().cpu().numpy(), lengths_B.cpu().numpy()
