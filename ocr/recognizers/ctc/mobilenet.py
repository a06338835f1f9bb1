"""PaddleOCR's CRNN on MobileNetV3 (large), the Thai system's network, independent of neighbours.

Built as in PaddleOCR 2.x (ppocr/modeling/backbones/rec_mobilenet_v3.py, necks/rnn.py); Howard et
al. 2019, table 1. Every step that depends on the batch there works on the image's own columns here.
Legend: B batch, C channels, H height, W width in columns, T output columns, K classes.
"""

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from ocr.recognizers.ctc.layers import BiLstm, CtcNetwork, Dropout, MicroBatchNorm, mask_beyond
from ocr.recognizers.ctc.settings import MobileNetSettings

# kernel, expanded channels, channels, squeeze-and-excitation, hard-swish (else ReLU), stride of the
# height; the width keeps its columns
_BLOCKS = (
    (3, 16, 16, False, False, 1),
    (3, 64, 24, False, False, 2),
    (3, 72, 24, False, False, 1),
    (5, 72, 40, True, False, 2),
    (5, 120, 40, True, False, 1),
    (5, 120, 40, True, False, 1),
    (3, 240, 80, False, True, 1),
    (3, 200, 80, False, True, 1),
    (3, 184, 80, False, True, 1),
    (3, 184, 80, False, True, 1),
    (3, 480, 112, True, True, 1),
    (3, 672, 112, True, True, 1),
    (5, 672, 160, True, True, 2),
    (5, 960, 160, True, True, 1),
    (5, 960, 160, True, True, 1),
)
_STEM, _LAST = 16, 960
_HARD_SIGMOID_SLOPE = 0.2  # Paddle's; torch's own is 1/6


def _scaled(channels: float) -> int:
    """Return channels as a multiple of 8, at least 8, and not below nine tenths."""
    near = max(8, int(channels + 4) // 8 * 8)
    return near + 8 if near < 0.9 * channels else near


class _Convolution(nn.Module):
    """Convolution, normalisation and activation, then zeros beyond each image's width."""

    def __init__(
        self,
        channels_in: int,
        channels_out: int,
        kernel: int,
        stride: tuple[int, int] = (1, 1),
        groups: int = 1,
        activation: str = "",
    ) -> None:
        super().__init__()
        self.convolution = nn.Conv2d(
            channels_in, channels_out, kernel, stride, kernel // 2, groups=groups, bias=False
        )
        self.norm, self.activation = MicroBatchNorm(channels_out), activation

    def forward(self, features_BCHW: Tensor, widths_B: Tensor) -> Tensor:
        out = self.norm(self.convolution(features_BCHW))
        if self.activation:
            out = F.hardswish(out) if self.activation == "hardswish" else F.relu(out)
        return mask_beyond(out, widths_B)


class _SqueezeExcitation(nn.Module):
    """Channels weighted by their mean over the image's own columns.

    A mean over the whole batch's width would depend on neighbours.
    """

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.squeeze, self.excite = (
            nn.Conv2d(channels, channels // 4, 1),
            nn.Conv2d(channels // 4, channels, 1),
        )

    def forward(self, features_BCHW: Tensor, widths_B: Tensor) -> Tensor:
        own_pixels_B = (widths_B * features_BCHW.shape[2]).to(features_BCHW.dtype)
        mean_BC11 = (features_BCHW.sum((2, 3)) / own_pixels_B[:, None])[:, :, None, None]
        excited_BC11: Tensor = self.excite(F.relu(self.squeeze(mean_BC11)))
        share_BC11: Tensor = torch.clamp(_HARD_SIGMOID_SLOPE * excited_BC11 + 0.5, 0, 1)
        return features_BCHW * share_BC11


class _Block(nn.Module):
    """An inverted residual: expand, convolve each channel, weight, project."""

    def __init__(
        self,
        channels_in: int,
        expanded: int,
        channels_out: int,
        kernel: int,
        excited: bool,
        activation: str,
        height_stride: int,
    ) -> None:
        super().__init__()
        self.expand = _Convolution(channels_in, expanded, 1, activation=activation)
        self.depthwise = _Convolution(
            expanded, expanded, kernel, (height_stride, 1), expanded, activation
        )
        self.excite = _SqueezeExcitation(expanded) if excited else None
        self.project = _Convolution(expanded, channels_out, 1)
        self.keeps_shape = height_stride == 1 and channels_in == channels_out

    def forward(self, features_BCHW: Tensor, widths_B: Tensor) -> Tensor:
        out: Tensor = self.depthwise(self.expand(features_BCHW, widths_B), widths_B)
        if self.excite is not None:
            out = self.excite(out, widths_B)
        out = self.project(out, widths_B)
        return features_BCHW + out if self.keeps_shape else out


class MobileNetNetwork(CtcNetwork):
    """RGB; height 32 → 1, an output every 4 columns; two BiLSTM layers; the classes."""

    def __init__(self, settings: MobileNetSettings, classes: int) -> None:
        super().__init__()
        before = _scaled(_STEM * settings.scale)
        self.stem = _Convolution(3, before, 3, (2, 2), activation="hardswish")
        blocks = []
        for kernel, expanded, channels, excited, hard_swish, height_stride in _BLOCKS:
            wide, after = _scaled(settings.scale * expanded), _scaled(settings.scale * channels)
            blocks.append(
                _Block(
                    before,
                    wide,
                    after,
                    kernel,
                    excited,
                    "hardswish" if hard_swish else "relu",
                    height_stride,
                )
            )
            before = after
        self.blocks = nn.ModuleList(blocks)
        self.last = _Convolution(before, _scaled(settings.scale * _LAST), 1, activation="hardswish")
        self.lstm = BiLstm(_scaled(settings.scale * _LAST), settings.hidden_size, layers=2)
        self.dropout = Dropout(settings.dropout)
        self.classes = nn.Linear(2 * settings.hidden_size, classes)

    def forward(self, ink_BCHW: Tensor, widths_B: Tensor) -> tuple[Tensor, Tensor]:
        """Return logits and output lengths, as CtcNetwork.forward defines them."""
        widths_B = widths_B // 2
        features = self.stem(ink_BCHW, widths_B)
        for block in self.blocks:
            features = block(features, widths_B)
        features, widths_B = F.max_pool2d(self.last(features, widths_B), 2), widths_B // 2
        features_TBC = features.squeeze(2).permute(2, 0, 1).float()
        with self.in_fp32(features):
            return self.classes(self.dropout(self.lstm(features_TBC, widths_B))), widths_B
