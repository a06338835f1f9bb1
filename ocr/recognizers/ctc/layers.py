"""The interface of CTC networks and their shared layers, in which neighbours change nothing.

Legend: B batch, C channels, H height, W width in columns, T output columns, K classes.
Every image brings its own width. Values beyond that width are zero after each convolution, so
padding and neighbours never change a reading.
"""

from abc import ABC, abstractmethod

import torch
from torch import Tensor, nn
from torch.nn import functional as F


class CtcNetwork(nn.Module, ABC):
    """A CTC network, as trainers and readers use it."""

    class_layers: tuple[str, ...] = ("classes",)  # layers with a row of weights for each class

    @abstractmethod
    def forward(self, ink_BCHW: Tensor, widths_B: Tensor) -> tuple[Tensor, Tensor]:
        """Return logits [T, B, K] in fp32 and output lengths [B].

        Widths are in columns, as ocr.recognizers.ctc.inputs.collate gives them.
        """

    @staticmethod
    def in_fp32(features: Tensor) -> torch.autocast:
        """Return a context for fp32 of LSTM and classes, whatever the convolutions used."""
        return torch.autocast(features.device.type, enabled=False)


def mask_beyond(features_BCHW: Tensor, widths_B: Tensor) -> Tensor:
    """Set every column at or beyond the image's own width to zero."""
    width = features_BCHW.shape[3]
    inside_BW = torch.arange(width, device=features_BCHW.device) < widths_B[:, None]
    return features_BCHW * inside_BW[:, None, None, :].to(features_BCHW.dtype)


class MicroBatchNorm(nn.Module):
    """Batch normalisation whose running statistics move once a step, by sums of all micro-batches.

    In training it normalises by the micro-batch at hand. It adds that batch's mean and variance,
    times `sample_weight`, to `step_sums` [2C + 1]. The loop sums those over the workers and calls
    `absorb`, so the number of workers changes nothing.
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
        """Return [B, C, H, W] normalised over B, H and W."""
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
    """Dropout whose random numbers follow the index in the tensor.

    torch's follow the memory layout, which an engine may change.
    """

    def __init__(self, share: float) -> None:
        super().__init__()
        self.share = share

    def forward(self, features: Tensor) -> Tensor:
        """Return the features with a share set to zero and the others scaled up."""
        if not self.training or not self.share:
            return features
        kept = torch.empty(features.shape, dtype=features.dtype, device=features.device).bernoulli_(
            1 - self.share
        )
        return features * kept.div_(1 - self.share)


class BiLstm(nn.Module):
    """Bidirectional LSTM layers over each image's own columns, in fp32, with our own dropout.

    Each direction is an LSTM of its own that starts at the image's first or last column. So columns
    beyond the width are read after all others. torch's packed sequences do the same 1.7 times
    slower on a CPU.
    """

    def __init__(self, features: int, hidden: int, layers: int = 1, dropout: float = 0.0) -> None:
        super().__init__()
        sizes = [features] + [2 * hidden] * (layers - 1)
        self.forwards = nn.ModuleList(nn.LSTM(size, hidden) for size in sizes)
        self.backwards = nn.ModuleList(nn.LSTM(size, hidden) for size in sizes)
        self.dropout = Dropout(dropout)

    def forward(self, features_TBC: Tensor, lengths_B: Tensor) -> Tensor:
        """Return [T, B, 2 × hidden]; the output beyond an image's length has no meaning."""
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
    """Return [T, B]: column t of an image of length n is n - 1 - t, and t beyond the length."""
    column_T1 = torch.arange(columns, device=lengths_B.device)[:, None]
    return torch.where(column_T1 < lengths_B, lengths_B - 1 - column_T1, column_T1)


def _picked(features_TBC: Tensor, columns_TB: Tensor) -> Tensor:
    return features_TBC.gather(0, columns_TB[:, :, None].expand_as(features_TBC))
