"""Chunked losses equal those of whole logits; weights of confused tokens follow their formula."""

import pytest
import torch
from torch.nn import functional as F

from trainers.config import LossSettings
from trainers.families.vlm import losses as module
from trainers.families.vlm.losses import Confusion, losses_of, token_losses

PLAIN = LossSettings(name="cross_entropy")
FOCAL = LossSettings(name="cross_entropy", focal_alpha=0.25, focal_gamma=2.0, label_smoothing=0.1)


def data(
    tokens: int = 100, hidden: int = 16, vocabulary: int = 50
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    torch.manual_seed(0)
    return (
        torch.randn(tokens, hidden, requires_grad=True),
        torch.randn(vocabulary, hidden),
        torch.randint(0, vocabulary, (tokens,)),
    )


@pytest.mark.parametrize("settings", [PLAIN, FOCAL], ids=["plain", "focal and smoothed"])
def test_chunks_give_the_losses_and_gradients_of_the_whole(
    settings: LossSettings, monkeypatch: pytest.MonkeyPatch
) -> None:
    hidden, head, targets = data()
    upstream = torch.rand(len(targets))
    whole = losses_of(hidden @ head.T, targets, settings)
    (expected,) = torch.autograd.grad((whole * upstream).sum(), hidden)
    monkeypatch.setattr(module, "_LOGITS_AT_ONCE", 50 * 17)  # 17 tokens at once
    losses, likeliest = token_losses(hidden, head, targets, settings)
    (found,) = torch.autograd.grad((losses * upstream).sum(), hidden)
    assert torch.allclose(losses, whole, atol=1e-6)
    assert torch.allclose(found, expected, atol=1e-6)
    assert torch.equal(likeliest, (hidden @ head.T).argmax(1))


def test_plain_losses_are_torchs_cross_entropy_and_focal_ones_the_papers() -> None:
    hidden, head, targets = data()
    logits = (hidden @ head.T).detach()
    assert torch.allclose(
        losses_of(logits, targets, PLAIN), F.cross_entropy(logits, targets, reduction="none")
    )
    p = logits.softmax(1).gather(1, targets[:, None])[:, 0]
    focal = LossSettings(name="cross_entropy", focal_alpha=0.25, focal_gamma=2.0)
    assert torch.allclose(
        losses_of(logits, targets, focal), -0.25 * (1 - p) ** 2 * p.log(), atol=1e-6
    )


def test_a_token_read_for_certain_has_a_finite_gradient() -> None:
    hidden = torch.tensor([[200.0, 0.0]], requires_grad=True)
    losses, _ = token_losses(
        hidden, torch.eye(2), torch.tensor([0]), LossSettings(name="cross_entropy", focal_gamma=0.5)
    )
    losses.sum().backward()
    assert hidden.grad is not None
    assert bool(torch.isfinite(hidden.grad).all())


def test_no_gradient_is_made_where_none_is_asked_for() -> None:
    hidden, head, targets = data()
    with torch.no_grad():
        losses, _ = token_losses(hidden, head, targets, PLAIN)
    assert not losses.requires_grad


def test_often_confused_tokens_weigh_more_within_bounds() -> None:
    confusion = Confusion(
        4,
        LossSettings(
            name="cross_entropy", confusion_weight=2.0, confusion_max=1.5, confusion_decay=0.5
        ),
    )
    everyone = torch.arange(4)
    assert torch.equal(confusion.weights(everyone), torch.ones(4))
    targets, read = (
        torch.tensor([0] * 100 + [1] * 100 + [2] * 8),
        torch.tensor([3] * 100 + [1] * 100 + [2] * 8),
    )
    confusion.note(targets, read)
    assert torch.equal(confusion.weights(everyone), torch.ones(4)), (
        "weights move between steps only"
    )
    confusion.absorb(confusion.step_sums.clone())
    mean = 100 / 208
    rates = torch.tensor([(100 + 8 * mean) / 108, 8 * mean / 108, 8 * mean / 16, mean])
    assert torch.allclose(confusion.weights(everyone), (1 + 2 * (rates - mean)).clamp(1 / 1.5, 1.5))
    confusion.note(targets[:1], read[:1])
    confusion.absorb(confusion.step_sums.clone())
    assert confusion.seen_V.tolist() == [51, 50, 4, 0]
    assert float(confusion.step_sums.sum()) == 0
