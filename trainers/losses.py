"""Losses, one value per sample, so that a bad sample can be named.

Legend: T output columns, B batch, K classes, S all target classes of the batch in a row.
"""

from itertools import pairwise

from torch import Tensor
from torch.nn import functional as F

from ocr.alphabet import BLANK


def outputs_needed(classes: list[int]) -> int:
    """Output columns that CTC needs for a target: one per class and a blank between equal neighbours."""
    return len(classes) + sum(left == right for left, right in pairwise(classes))


def ctc_losses(logits_TBK: Tensor, lengths_B: Tensor, targets_S: Tensor, target_lengths_B: Tensor) -> Tensor:
    """Negative log likelihood of each target per target class (Graves et al. 2006, eq. 7), [B], in fp32 on the CPU.

    CUDA's backward pass is not deterministic, and infeasible targets give inf: `Task.check` has left them out before.
    """
    log_probs_TBK = logits_TBK.float().cpu().log_softmax(2)
    losses_B = F.ctc_loss(log_probs_TBK, targets_S, lengths_B.cpu(), target_lengths_B, BLANK, reduction="none")
    return losses_B / target_lengths_B.clamp_min(1).to(losses_B.dtype)
