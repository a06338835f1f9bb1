"""The CTC networks: ink images in, one row of class logits per output column.

Legend: B batch, C channels, H height, W width in columns, T output columns, K classes. Every image brings its own width,
and what lies beyond it is zero after each convolution, so padding and neighbours never change a reading.
"""

from abc import ABC, abstractmethod
from itertools import pairwise

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn import functional as F

from ocr.recognizers.ctc.settings import (
    CompactSettings,
    CrnnSettings,
    MobileNetSettings,
    NetworkSettings,
    SvtrSettings,
)

COMPACT_SIZES = {
    "small": ((24, 48, 64, 96, 128), 96),
    "base": ((32, 64, 96, 128, 192), 128),
    "large": ((48, 96, 144, 192, 320), 256),
}


def build_network(settings: NetworkSettings, classes: int) -> "CtcNetwork":
    """The network that the settings name, with freshly drawn weights from torch's global generator."""
    if isinstance(settings, MobileNetSettings):
        from ocr.recognizers.ctc.mobilenet import MobileNetNetwork

        return MobileNetNetwork(settings, classes)
    if isinstance(settings, SvtrSettings):
        from ocr.recognizers.ctc.svtr import SvtrNetwork

        return SvtrNetwork(settings, classes)
    return (
        CompactNetwork(settings, classes)
        if isinstance(settings, CompactSettings)
        else CrnnNetwork(settings, classes)
    )


class CtcNetwork(nn.Module, ABC):
    """What trainers and readers ask of a CTC network."""

    class_layers: tuple[str, ...] = ("classes",)  # a row of weights for each class

    @abstractmethod
    def forward(self, ink_BCHW: Tensor, widths_B: Tensor) -> tuple[Tensor, Tensor]:
        """Logits [T, B, K] in fp32 and output lengths [B]; widths are in columns, as ocr.recognizers.ctc.reading gives them."""

    @staticmethod
    def in_fp32(features: Tensor) -> torch.autocast:
        """A context in which LSTM and classes are computed in fp32, whatever the convolutions were."""
        return torch.autocast(features.device.type, enabled=False)


class TorchBackend:
    """A network on a device as ocr.recognizers.ctc.reading reads with it; a network in training comes back as it was."""

    def __init__(self, network: CtcNetwork, device: str = "cpu") -> None:
        self.network, self.device = network.to(device), torch.device(device)

    @torch.no_grad()
    def logits(
        self, ink_BCHW: NDArray[np.float32], widths_B: NDArray[np.int64]
    ) -> tuple[NDArray[np.float32], NDArray[np.int64]]:
        """Class logits [T, B, K] and output lengths [B]."""
        was_training = self.network.training
        self.network.eval()
        logits_TBK, lengths_B = self.network(
            torch.from_numpy(ink_BCHW).to(self.device), torch.from_numpy(widths_B).to(self.device)
        )
        self.network.train(was_training)
        return logits_TBK.float().cpu().numpy(), lengths_B.cpu().numpy()


def mask_beyond(features_BCHW: Tensor, widths_B: Tensor) -> Tensor:
    """Zero every column at or beyond the image's own width."""
    width = features_BCHW.shape[3]
    inside_BW = torch.arange(width, device=features_BCHW.device) < widths_B[:, None]
    return features_BCHW * inside_BW[:, None, None, :].to(features_BCHW.dtype)


class MicroBatchNorm(nn.Module):
    """Batch normalisation whose running statistics move once a step, from sums over all micro-batches of all workers.

    In training it normalises by the micro-batch at hand and adds that batch's mean and variance, times `sample_weight`,
    to `step_sums` [2C + 1]; the loop sums those over the workers and calls `absorb`. The number of workers changes nothing.
    """

    def __init__(self, channels: int, momentum: float = 0.1, eps: float = 1e-5) -> None:
        super().__init__()
        self.momentum, self.eps = momentum, eps
        self.weight, self.bias = (
            nn.Parameter(torch.ones(channels)),
            nn.Parameter(torch.zeros(channels)),
        )
        self.running_mean: Tensor
        self.running_variance: Tensor
        self.register_buffer("running_mean", torch.zeros(channels))
        self.register_buffer("running_variance", torch.ones(channels))
        self.step_sums: Tensor
        self.register_buffer(
            "step_sums", torch.zeros(2 * channels + 1, dtype=torch.float64), persistent=False
        )
        self.sample_weight = 1.0

    def forward(self, features_BCHW: Tensor) -> Tensor:
        """[B, C, H, W] normalised over B, H and W."""
        if not self.training:
            return F.batch_norm(
                features_BCHW,
                self.running_mean,
                self.running_variance,
                self.weight,
                self.bias,
                False,
                0.0,
                self.eps,
            )
        out, mean, inverse_deviation = torch.native_batch_norm(
            features_BCHW, self.weight, self.bias, None, None, True, 0.0, self.eps
        )
        with torch.no_grad():
            variance = inverse_deviation.pow(-2) - self.eps
            self.step_sums += self.sample_weight * torch.cat(
                [mean, variance, torch.ones_like(mean[:1])]
            )
        return out

    @torch.no_grad()
    def absorb(self, sums: Tensor) -> None:
        """Move the running statistics by the step's sums [2C + 1] and start the next step's."""
        mean, variance = (sums[:-1] / sums[-1]).to(self.running_mean.dtype).chunk(2)
        self.running_mean.lerp_(mean, self.momentum)
        self.running_variance.lerp_(variance, self.momentum)
        self.step_sums.zero_()


class Dropout(nn.Module):
    """torch's, but for the order of its draws: by place in the tensor, not by memory layout, which an engine may change."""

    def __init__(self, share: float) -> None:
        super().__init__()
        self.share = share

    def forward(self, features: Tensor) -> Tensor:
        """The features, so many of them zero and the others larger by as much."""
        if not self.training or not self.share:
            return features
        kept = torch.empty(features.shape, dtype=features.dtype, device=features.device).bernoulli_(
            1 - self.share
        )
        return features * kept.div_(1 - self.share)


class _ConvBlock(nn.Module):
    """Convolution, normalisation, ReLU, then nothing beyond each image's width."""

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
        # of one grey channel the layout of a weight does not say which layout comes out, and batch normalisation rounds otherwise in each
        convolved = self.convolution(features_BCHW).contiguous(memory_format=torch.channels_last)
        return mask_beyond(F.relu(self.norm(convolved)), widths_B), widths_B


class BiLstm(nn.Module):
    """Bidirectional LSTM layers over each image's own columns, in fp32; dropout between layers is our own module's.

    Each direction is an LSTM of its own that reads from the image's first or last column on, so what lies beyond the width is
    read after everything that counts. torch's packed sequences do the same 1.7 times slower on a CPU.
    """

    def __init__(self, features: int, hidden: int, layers: int = 1, dropout: float = 0.0) -> None:
        super().__init__()
        sizes = [features] + [2 * hidden] * (layers - 1)
        self.forwards = nn.ModuleList(nn.LSTM(size, hidden) for size in sizes)
        self.backwards = nn.ModuleList(nn.LSTM(size, hidden) for size in sizes)
        self.dropout = Dropout(dropout)

    def forward(self, features_TBC: Tensor, lengths_B: Tensor) -> Tensor:
        """[T, B, 2 × hidden]; beyond an image's length the output means nothing."""
        reversed_TB = _reversed_columns(features_TBC.shape[0], lengths_B)
        for index, (forwards, backwards) in enumerate(
            zip(self.forwards, self.backwards, strict=True)
        ):
            given_TBC = self.dropout(features_TBC) if index else features_TBC
            from_right_TBC = backwards(_picked(given_TBC, reversed_TB))[0]
            features_TBC = torch.cat(
                [forwards(given_TBC)[0], _picked(from_right_TBC, reversed_TB)], dim=2
            )
        return features_TBC


def _reversed_columns(columns: int, lengths_B: Tensor) -> Tensor:
    """[T, B]: column t of an image of length n is n - 1 - t, and itself beyond the length."""
    column_T1 = torch.arange(columns, device=lengths_B.device)[:, None]
    return torch.where(column_T1 < lengths_B, lengths_B - 1 - column_T1, column_T1)


def _picked(features_TBC: Tensor, columns_TB: Tensor) -> Tensor:
    return features_TBC.gather(0, columns_TB[:, :, None].expand_as(features_TBC))


class CompactNetwork(CtcNetwork):
    """Grey; stride-2 stem; height 32 → 16 → 8 → 4 → 1 by convolutions; one output every 4 columns.

    The classes are the sum of what the LSTM says and of what each column says by itself: that direct way to the convolutions
    is what leaves CTC's blank plateau early (docs/log.md has the figures).
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
        """See CtcNetwork."""
        features = ink_BCHW
        for block in self.blocks:
            features, widths_B = block(features, widths_B)
        features_TBC = features.squeeze(2).permute(2, 0, 1).float()
        with self.in_fp32(features):
            in_context_TBC = self.lstm(self.dropout(features_TBC), widths_B)
            return self.classes(self.dropout(in_context_TBC)) + self.direct(
                self.dropout(features_TBC)
            ), widths_B


class CrnnNetwork(CtcNetwork):
    """The Corrections system's: RGB, three (convolution, ReLU, 2×2 max pooling, dropout), BiLSTM 2 × 256; an output every 8 columns."""

    def __init__(self, settings: CrnnSettings, classes: int) -> None:
        super().__init__()
        sizes = (3, 64, 128, 256)
        self.convolutions = nn.ModuleList(
            nn.Conv2d(before, after, 3, padding=1) for before, after in pairwise(sizes)
        )
        self.dropout = Dropout(settings.dropout)
        self.lstm = BiLstm(256 * settings.height_px // 8, 256, layers=2, dropout=settings.dropout)
        self.classes = nn.Linear(2 * 256, classes)

    def forward(self, ink_BCHW: Tensor, widths_B: Tensor) -> tuple[Tensor, Tensor]:
        """See CtcNetwork."""
        features = ink_BCHW
        for convolution in self.convolutions:
            features = F.max_pool2d(F.relu(convolution(features)), 2)
            widths_B = torch.div(widths_B, 2, rounding_mode="floor")
            features = mask_beyond(self.dropout(features), widths_B)
        features_TBC = features.flatten(1, 2).permute(2, 0, 1).float()
        with self.in_fp32(features):
            return self.classes(self.lstm(features_TBC, widths_B)), widths_B
