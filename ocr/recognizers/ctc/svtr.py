"""SVTR (Du et al. 2022), the Thai system's other network, on lines of one fixed size.

A line is cut into patches; attention mixes neighbours first, then the whole line. Built as
PaddleOCR 2.x builds SVTRNet by default (ppocr/modeling/backbones/rec_svtrnet.py), with the CTCHead
of heads/rec_ctc_head.py.
Legend: B batch, C channels, H height, W width in columns, N patches (rows of W), T output columns,
K classes.
"""

from collections.abc import Sequence
from itertools import islice

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from ocr.recognizers.ctc.layers import CtcNetwork, Dropout, MicroBatchNorm
from ocr.recognizers.ctc.settings import SvtrSettings

_PATCH_PX = SvtrSettings.columns_per_output  # width and height of a patch
# channels, heads, blocks with local mixing, blocks with global mixing; each stage has half the rows
# of the one before
_STAGES = ((64, 2, 3, 0), (128, 4, 3, 3), (256, 8, 0, 3))
_NEAR = (7, 11)  # rows and columns of the window around a patch
_WIDER = 4  # hidden features of a block, in channels
# share of images whose last block is skipped in training; 0 for the first block, rising evenly
_MOST_DROPPED = 0.1


def _near_only(rows: int, columns: int) -> Tensor:
    """Return the mask added to attention, [N, N]: 0 inside the window around a patch, else -inf.

    This is local mixing (Du et al. 2022, section 3.3).
    """
    near_HH, near_WW = (
        ((torch.arange(count)[:, None] - torch.arange(count)).abs() <= window // 2).float()
        for count, window in zip((rows, columns), _NEAR, strict=True)
    )
    return torch.kron(near_HH, near_WW).log()


class _Attention(nn.Module):
    """Multi-head attention of each patch to all patches that the mask allows."""

    def __init__(self, channels: int, heads: int) -> None:
        super().__init__()
        self.channels, self.heads = channels, heads
        self.query_key_value, self.output = (
            nn.Linear(channels, 3 * channels),
            nn.Linear(channels, channels),
        )

    def forward(self, patches_BNC: Tensor, mask_NN: Tensor | None) -> Tensor:
        query, key, value = (
            self.query_key_value(patches_BNC)
            .unflatten(2, (3, self.heads, self.channels // self.heads))
            .permute(2, 0, 3, 1, 4)
        )
        mixed = F.scaled_dot_product_attention(query, key, value, mask_NN)
        out_BNC: Tensor = self.output(mixed.transpose(1, 2).flatten(2))
        return out_BNC


class _Block(nn.Module):
    """Attention, then two layers per patch, each added and then normalised (Paddle's `prenorm`)."""

    def __init__(self, channels: int, heads: int, dropped: float) -> None:
        super().__init__()
        self.attention, self.attention_norm = (
            _Attention(channels, heads),
            nn.LayerNorm(channels, eps=1e-6),
        )
        self.layers = nn.Sequential(
            nn.Linear(channels, _WIDER * channels),
            nn.GELU(),
            nn.Linear(_WIDER * channels, channels),
        )
        self.layers_norm = nn.LayerNorm(channels, eps=1e-6)
        self.dropped = dropped

    def forward(self, patches_BNC: Tensor, mask_NN: Tensor | None) -> Tensor:
        mixed_BNC = self.attention_norm(
            patches_BNC + self._for_some(self.attention(patches_BNC, mask_NN))
        )
        out_BNC: Tensor = self.layers_norm(mixed_BNC + self._for_some(self.layers(mixed_BNC)))
        return out_BNC

    def _for_some(self, branch_BNC: Tensor) -> Tensor:
        """Skip a branch for a share of the images in training, and scale it up for the others.

        This is stochastic depth (Huang et al. 2016).
        """
        if not self.training:
            return branch_BNC
        return branch_BNC * F.dropout(branch_BNC.new_ones(len(branch_BNC), 1, 1), self.dropped)


class _Stage(nn.Module):
    """Blocks over a grid of patches; the first ones see only the window around each patch."""

    def __init__(
        self,
        channels: int,
        heads: int,
        near: int,
        dropped: Sequence[float],
        rows: int,
        columns: int,
    ) -> None:
        super().__init__()
        self.near = near
        self.blocks = nn.ModuleList(_Block(channels, heads, share) for share in dropped)
        self.mask_NN: Tensor | None
        self.register_buffer(
            "mask_NN", _near_only(rows, columns) if near else None, persistent=False
        )

    def forward(self, features_BCHW: Tensor) -> Tensor:
        patches_BNC = features_BCHW.flatten(2).transpose(1, 2)
        for index, block in enumerate(self.blocks):
            patches_BNC = block(patches_BNC, self.mask_NN if index < self.near else None)
        return patches_BNC.transpose(1, 2).reshape(features_BCHW.shape)


class _Merge(nn.Module):
    """Half the rows, more channels."""

    def __init__(self, channels_in: int, channels_out: int) -> None:
        super().__init__()
        self.convolution, self.norm = (
            nn.Conv2d(channels_in, channels_out, 3, (2, 1), 1),
            nn.LayerNorm(channels_out),
        )

    def forward(self, features_BCHW: Tensor) -> Tensor:
        out_BCHW: Tensor = self.norm(self.convolution(features_BCHW).permute(0, 2, 3, 1)).permute(
            0, 3, 1, 2
        )
        return out_BCHW


class SvtrNetwork(CtcNetwork):
    """RGB; patches of 4 × 4 pixels with positions; three stages; means of columns; the classes."""

    def __init__(self, settings: SvtrSettings, classes: int) -> None:
        super().__init__()
        rows, columns = settings.height_px // _PATCH_PX, settings.width_px // _PATCH_PX
        first, last = _STAGES[0][0], _STAGES[-1][0]
        self.patches = nn.Sequential(
            *_halved(settings.channels, first // 2), *_halved(first // 2, first)
        )
        self.places_CHW = nn.Parameter(torch.empty(first, rows, columns))
        dropped = iter(
            torch.linspace(
                0, _MOST_DROPPED, sum(near + every for _, _, near, every in _STAGES)
            ).tolist()
        )
        stages = list[nn.Module]()
        for index, (channels, heads, near, every) in enumerate(_STAGES):
            stages += [_Merge(_STAGES[index - 1][0], channels)] if index else []
            shares = list(islice(dropped, near + every))
            stages += [_Stage(channels, heads, near, shares, rows >> index, columns)]
        self.stages = nn.Sequential(*stages)
        self.last = nn.Conv1d(last, settings.out_channels, 1, bias=False)
        self.apply(_initialise)
        nn.init.trunc_normal_(self.places_CHW, std=0.02)
        self.dropout = Dropout(settings.dropout)
        self.classes = nn.Linear(settings.out_channels, classes)
        # share of each column in each output; the pooling itself cannot be exported to ONNX
        self.share_WT: Tensor
        self.register_buffer(
            "share_WT",
            F.adaptive_avg_pool1d(torch.eye(columns), settings.out_char_num),
            persistent=False,
        )

    def forward(self, ink_BCHW: Tensor, widths_B: Tensor) -> tuple[Tensor, Tensor]:
        """Return logits and output lengths, as CtcNetwork.forward defines them."""
        features_BCHW = self.stages(self.patches(ink_BCHW) + self.places_CHW)
        with self.in_fp32(features_BCHW):
            pooled_BCT = features_BCHW.float().mean(2) @ self.share_WT
            features_TBC = F.hardswish(self.last(pooled_BCT)).permute(2, 0, 1)
            return self.classes(self.dropout(features_TBC)), torch.full_like(
                widths_B, self.share_WT.shape[1]
            )


def _halved(channels_in: int, channels_out: int) -> tuple[nn.Module, ...]:
    return nn.Conv2d(channels_in, channels_out, 3, 2, 1), MicroBatchNorm(channels_out), nn.GELU()


def _initialise(module: nn.Module) -> None:
    """Initialise the weights of a layer as PaddleOCR does."""
    if isinstance(module, nn.Linear):
        nn.init.trunc_normal_(module.weight, std=0.02)
    elif isinstance(module, nn.Conv1d | nn.Conv2d):
        nn.init.kaiming_normal_(module.weight, nonlinearity="relu")
    if isinstance(module, nn.Linear | nn.Conv1d | nn.Conv2d) and module.bias is not None:
        nn.init.zeros_(module.bias)
