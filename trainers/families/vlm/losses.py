"""Losses of answer tokens, one value each, in memory that no length of prompt or answer increases.

Legend: N answer tokens of a micro-batch, H hidden size, V vocabulary.
"""

from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from trainers.config import LossSettings

_LEAST = 1e-6  # least 1 - p: keeps the gradient finite where focal_gamma is below 1
_LOGITS_AT_ONCE = 1 << 24
_PRIOR = 8.0  # sightings that a token's error rate starts with, at the mean rate


def token_losses(
    hidden_NH: Tensor, head_VH: Tensor, targets_N: Tensor, settings: LossSettings
) -> tuple[Tensor, Tensor]:
    """Return the loss of each token [N], attached to the hidden states, and likeliest tokens [N].

    The head is frozen, so each chunk's gradient is computed at once and its logits are freed. No
    logits outlive a chunk of 64 MiB, and nothing is computed twice. Hsu et al. 2024 (Liger kernels,
    section 3.2) do so for plain cross entropy.
    """
    losses_N, likeliest_N = _Chunked.apply(hidden_NH, head_VH, targets_N, settings)  # type: ignore[no-untyped-call]
    return losses_N, likeliest_N


def losses_of(logits_NV: Tensor, targets_N: Tensor, settings: LossSettings) -> Tensor:
    """Return the cross entropy, smoothed (Szegedy et al. 2016), [N] in fp32.

    It is times α (1 − p)^γ, p the target's probability (Lin et al. 2017, eq. 5).
    """
    logits_NV = logits_NV.float()
    losses_N = F.cross_entropy(
        logits_NV, targets_N, reduction="none", label_smoothing=settings.label_smoothing
    )
    if not settings.focal_gamma:
        return losses_N
    plain_N = (
        F.cross_entropy(logits_NV, targets_N, reduction="none")
        if settings.label_smoothing
        else losses_N
    )
    return (
        settings.focal_alpha
        * (-torch.expm1(-plain_N)).clamp_min(_LEAST).pow(settings.focal_gamma)
        * losses_N
    )


class _Chunked(torch.autograd.Function):
    """Losses in chunks, with their gradients computed in the forward pass.

    Each token's loss depends on its own hidden state alone, so the backward pass scales them.
    """

    @staticmethod
    def forward(
        ctx: Any, hidden_NH: Tensor, head_VH: Tensor, targets_N: Tensor, settings: LossSettings
    ) -> tuple[Tensor, Tensor]:
        wanted = ctx.needs_input_grad[0]
        losses, likeliest, gradients = list[Tensor](), list[Tensor](), list[Tensor]()
        chunk = max(16, _LOGITS_AT_ONCE // head_VH.shape[0])
        for hidden, targets in zip(
            torch.split(hidden_NH, chunk), torch.split(targets_N, chunk), strict=True
        ):
            with torch.set_grad_enabled(wanted):
                own = hidden.detach().float().requires_grad_(wanted)
                logits = F.linear(own.to(head_VH.dtype), head_VH)
                token_losses_N = losses_of(logits, targets, settings)
                gradients += torch.autograd.grad(token_losses_N.sum(), own) if wanted else ()
            losses.append(token_losses_N.detach())
            likeliest.append(logits.detach().argmax(1))
        ctx.save_for_backward(torch.cat(gradients) if gradients else hidden_NH.new_zeros(0))
        ctx.dtype = hidden_NH.dtype
        ctx.mark_non_differentiable(found_tokens := torch.cat(likeliest))
        return torch.cat(losses), found_tokens

    @staticmethod
    def backward(ctx: Any, *upstream: Tensor) -> tuple[Tensor | None, ...]:
        (gradients_NH,) = ctx.saved_tensors
        return (upstream[0][:, None] * gradients_NH).to(ctx.dtype), None, None, None


class Confusion(nn.Module):
    """Running sums over all workers of how often each token is misread, and each target's weight.

    rate = (wrong + prior · mean) / (seen + prior); weight = 1 + λ (rate − mean) within
    [1/most, most]. The sums change between steps only, so that a step's weights do not depend on
    the order of its micro-batches.
    """

    def __init__(self, vocabulary: int, settings: LossSettings) -> None:
        super().__init__()
        self.settings = settings
        self.seen_V: Tensor
        self.wrong_V: Tensor
        self.step_sums: Tensor
        self.register_buffer("seen_V", torch.zeros(vocabulary))
        self.register_buffer("wrong_V", torch.zeros(vocabulary))
        self.register_buffer("step_sums", torch.zeros(2 * vocabulary), persistent=False)

    def weights(self, targets_N: Tensor) -> Tensor:
        """Return the weight of each target token, [N]."""
        mean = self.wrong_V.sum() / self.seen_V.sum().clamp_min(1.0)
        rates_N = (self.wrong_V[targets_N] + _PRIOR * mean) / (self.seen_V[targets_N] + _PRIOR)
        most = self.settings.confusion_max
        return (1 + self.settings.confusion_weight * (rates_N - mean)).clamp(1 / most, most)

    def note(self, targets_N: Tensor, likeliest_N: Tensor) -> None:
        """Count the tokens of a micro-batch."""
        vocabulary = len(self.seen_V)
        self.step_sums[:vocabulary] += torch.bincount(targets_N, minlength=vocabulary)
        self.step_sums[vocabulary:] += torch.bincount(
            targets_N[targets_N != likeliest_N], minlength=vocabulary
        )

    def absorb(self, sums: Tensor) -> None:
        """Update the running sums by those of a step, [2 V]."""
        seen_V, wrong_V = sums.to(self.seen_V.dtype).chunk(2)
        self.seen_V.mul_(self.settings.confusion_decay).add_(seen_V)
        self.wrong_V.mul_(self.settings.confusion_decay).add_(wrong_V)
        self.step_sums.zero_()
