"""The fast CTC network for a CPU.

Legend: B batch, C channels, H height, W width in columns, T output columns, K classes.
"""

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from ocr.recognizers.ctc.layers import BiLstm, CtcNetwork, Dropout, MicroBatchNorm, mask_beyond
from ocr.recognizers.ctc.settings import CompactSettings

COMPACT_SIZES = {
    "small": ((24, 48, 64, 96, 128), 96),
    "base": ((32, 64, 96, 128, 192), 128),
    "large": ((48, 96, 144, 192, 320), 256),
}


class _ConvBlock(nn.Module):
    """Convolution, normalisation, ReLU, then zeros beyond each image's width."""

    def __init__(
        self,
        channels_in: int,
        channels_out: int,
        kernel: tuple[int, int] = (3, 3),
        stride: tuple[int, int] = (1, 1),
        pad_height: bool = True,
    ) -> None:
        super().__init__()
        padding = (kernel[0] // 2 if pad_height else 0, kernel[1] // 2)
        self.convolution = nn.Conv2d(channels_in, channels_out, kernel, stride, padding, bias=False)
        self.norm = MicroBatchNorm(channels_out)
        self.column_stride = stride[1]

    def forward(self, features_BCHW: Tensor, widths_B: Tensor) -> tuple[Tensor, Tensor]:
        widths_B = torch.div(widths_B, self.column_stride, rounding_mode="floor")
        # With one grey channel a weight's layout does not fix the layout of the output, and batch
        # normalisation rounds differently in each.
        convolved = self.convolution(features_BCHW).contiguous(memory_format=torch.channels_last)
        return mask_beyond(F.relu(self.norm(convolved)), widths_B), widths_B


class CompactNetwork(CtcNetwork):
    """Grey; stride-2 stem; height 32 → 16 → 8 → 4 → 1 by convolutions; one output every 4 columns.

    The logits are the sum of two layers: one after the LSTM, one directly on the convolutions. The
    direct one leaves CTC's blank plateau early (docs/results.md has the figures).
    """

    class_layers = ("classes", "direct")

    def __init__(self, settings: CompactSettings, classes: int) -> None:
        super().__init__()
        (c1, c2, c3, c4, c5), hidden = COMPACT_SIZES[settings.size]
        self.blocks = nn.ModuleList(
            [
                _ConvBlock(1, c1, stride=(2, 2)),
                _ConvBlock(c1, c2, stride=(2, 2)),
                _ConvBlock(c2, c3),
                _ConvBlock(c3, c4, stride=(2, 1)),
                _ConvBlock(c4, c4),
                _ConvBlock(c4, c5, kernel=(settings.height_px // 8, 1), pad_height=False),
            ]
        )
        self.dropout = Dropout(settings.dropout)
        self.lstm = BiLstm(c5, hidden)
        self.classes = nn.Linear(2 * hidden, classes)
        self.direct = nn.Linear(c5, classes)

    def forward(self, ink_BCHW: Tensor, widths_B: Tensor) -> tuple[Tensor, Tensor]:
        """Return logits and output lengths, as CtcNetwork.forward defines them."""
        features = ink_BCHW
        for block in self.blocks:
            features, widths_B = block(features, widths_B)
        features_TBC = features.squeeze(2).permute(2, 0, 1).float()
        with self.in_fp32(features):
            in_context_TBC = self.lstm(self.dropout(features_TBC), widths_B)
            return self.classes(self.dropout(in_context_TBC)) + self.direct(
                self.dropout(features_TBC)
            ), widths_B
