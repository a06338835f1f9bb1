"""The CNN + BiLSTM network of the Corrections system.

Legend: B batch, C channels, H height, W width in columns, T output columns, K classes.
"""

from itertools import pairwise

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from ocr.recognizers.ctc.layers import BiLstm, CtcNetwork, Dropout, mask_beyond
from ocr.recognizers.ctc.settings import CrnnSettings


class CrnnNetwork(CtcNetwork):
    """RGB, three (convolution, ReLU, 2×2 max pooling, dropout), BiLSTM; an output per 8 columns."""

    def __init__(self, settings: CrnnSettings, classes: int) -> None:
        super().__init__()
        sizes = (3, 64, 128, 256)
        self.convolutions = nn.ModuleList(
            nn.Conv2d(before, after, 3, padding=1) for before, after in pairwise(sizes)
        )
        self.dropout = Dropout(settings.dropout)
        hidden, layers = settings.hidden_size, settings.num_layers
        self.lstm = BiLstm(256 * settings.height_px // 8, hidden, layers, settings.dropout)
        self.classes = nn.Linear(2 * hidden, classes)

    def forward(self, ink_BCHW: Tensor, widths_B: Tensor) -> tuple[Tensor, Tensor]:
        """Return logits and output lengths, as CtcNetwork.forward defines them."""
        features = ink_BCHW
        for convolution in self.convolutions:
            features = F.max_pool2d(F.relu(convolution(features)), 2)
            widths_B = torch.div(widths_B, 2, rounding_mode="floor")
            features = mask_beyond(self.dropout(features), widths_B)
        features_TBC = features.flatten(1, 2).permute(2, 0, 1).float()
        with self.in_fp32(features):
            return self.classes(self.lstm(features_TBC, widths_B)), widths_B
