"""Losses, one value per sample, so that a bad sample can be named.

Legend: T output columns, B batch, K classes, S all target classes of the batch in a row.
"""

import math
from itertools import pairwise

import torch
from torch import Tensor
from torch.nn import functional as F

from ocr.alphabet import BLANK
from trainers.config import LossSettings

_LEAST = 1e-6  # least 1 - p: keeps the gradient finite where focal_gamma is below 1


def outputs_needed(classes: list[int]) -> int:
    """Return the output columns that CTC needs for a target.

    It needs one per class, and a blank between equal neighbours.
    """
    return len(classes) + sum(left == right for left, right in pairwise(classes))


def ctc_losses(
    logits_TBK: Tensor,
    lengths_B: Tensor,
    targets_S: Tensor,
    target_lengths_B: Tensor,
    settings: LossSettings | None = None,
) -> Tensor:
    """Return the negative log likelihood of each target per target class, [B].

    Graves et al. 2006, eq. 7; in fp32 on the CPU, as CUDA's backward pass is not deterministic.
    Infeasible targets give inf; `usable_samples` leaves them out. With `focal_gamma` it is times
    α (1 - p)^γ, p the likelihood of the whole target (Feng et al. 2019, eq. 6). With
    `label_smoothing` ε it is mixed with the columns' mean divergence from a uniform distribution
    (Kim et al. 2018, section 3.2).
    """
    log_probs_TBK, lengths_B = logits_TBK.float().cpu().log_softmax(2), lengths_B.cpu()
    losses_B = F.ctc_loss(
        log_probs_TBK, targets_S, lengths_B, target_lengths_B, BLANK, reduction="none"
    )
    if settings is not None and settings.focal_gamma:
        losses_B = (
            settings.focal_alpha
            * (-torch.expm1(-losses_B)).clamp_min(_LEAST).pow(settings.focal_gamma)
            * losses_B
        )
    losses_B = losses_B / target_lengths_B.clamp_min(1).to(losses_B.dtype)
    if settings is None or not settings.label_smoothing:
        return losses_B
    return (1 - settings.label_smoothing) * losses_B + settings.label_smoothing * _unevenness(
        log_probs_TBK, lengths_B
    )


def _unevenness(log_probs_TBK: Tensor, lengths_B: Tensor) -> Tensor:
    """Return the mean divergence of a uniform distribution from the prediction, [B].

    The mean is over an image's own columns; it is 0 where every class is equally likely.
    """
    columns, _, classes = log_probs_TBK.shape
    inside_TB = torch.arange(columns)[:, None] < lengths_B
    divergence_TB = -log_probs_TBK.mean(2) - math.log(classes)
    return torch.where(inside_TB, divergence_TB, 0.0).sum(0) / lengths_B
