"""The small parts of training: random keys, augmentation, learning rate, losses, normalisation."""

import math

import numpy as np
import pytest
import torch
from torch import nn

from ocr.keyed import generator, key_of
from ocr.recognizers.ctc.layers import MicroBatchNorm
from trainers.config import AugmentSettings, LossSettings, OptimizerSettings
from trainers.families.ctc.augment import augment
from trainers.families.ctc.losses import ctc_losses, outputs_needed
from trainers.loop.schedule import learning_rate

RNG = np.random.default_rng(0)
WORDS = [RNG.integers(0, 255, (32, width), dtype=np.uint8) for width in (40, 90, 61)]


def test_a_key_is_the_same_everywhere_and_tells_its_parts_apart() -> None:
    assert key_of(1, "a", 23) == 1629929072556716094
    assert len({key_of(1, 23), key_of(12, 3), key_of("1", 23), key_of(1, 2, 3)}) == 4
    assert generator(5).random() == generator(5).random()


def test_a_permuted_batch_gives_equal_augmented_images() -> None:
    settings = AugmentSettings()
    once = {i: augment(WORDS[i], settings, 7, 0, f"id{i}") for i in (0, 1, 2)}
    again = {i: augment(WORDS[i], settings, 7, 0, f"id{i}") for i in (2, 0, 1)}
    assert all(np.array_equal(once[i], again[i]) for i in once)
    assert not np.array_equal(once[0], augment(WORDS[0], settings, 7, 1, "id0"))
    assert all(once[i].shape == WORDS[i].shape for i in once)


def test_no_strength_leaves_an_image_as_it_is_and_colour_keeps_its_channels() -> None:
    assert np.array_equal(augment(WORDS[0], AugmentSettings(strength=0), 1), WORDS[0])
    colour = np.repeat(WORDS[0][:, :, None], 3, axis=2)
    assert augment(colour, AugmentSettings(), 1).shape == colour.shape


@pytest.mark.parametrize(
    ("kind", "expected"),
    [
        ("constant", {0: 0.1, 9: 1.0, 10: 1.0, 99: 1.0}),
        ("linear", {0: 0.1, 9: 1.0, 10: 1.0, 55: 0.5, 100: 0.0}),
        ("cosine", {0: 0.1, 9: 1.0, 10: 1.0, 55: 0.5, 100: 0.0}),
        ("one_cycle", {0: 0.04, 10: 1.0, 99: 1 / 250_000}),
    ],
)
def test_the_rate_over_time(kind: str, expected: dict[int, float]) -> None:
    settings = OptimizerSettings(learning_rate=1.0, warmup_steps=10, lr_scheduler_type=kind)
    assert {step: learning_rate(settings, step, 100) for step in expected} == pytest.approx(
        expected, abs=1e-9
    )


def test_torchs_one_cycle_is_ours() -> None:
    optimizer = torch.optim.SGD([nn.Parameter(torch.zeros(1))], lr=1.0)
    schedule = torch.optim.lr_scheduler.OneCycleLR(
        optimizer, max_lr=1.0, total_steps=100, pct_start=0.11
    )
    settings = OptimizerSettings(learning_rate=1.0, warmup_steps=10, lr_scheduler_type="one_cycle")
    for step in range(100):
        assert learning_rate(settings, step, 100) == pytest.approx(
            schedule.get_last_lr()[0], abs=1e-6
        )
        optimizer.step()
        if step < 99:
            schedule.step()


def test_a_target_needs_an_output_for_each_class_and_a_blank_between_equals() -> None:
    assert outputs_needed([1, 2, 3]) == 3
    assert outputs_needed([1, 1, 2, 2]) == 6


def test_the_loss_of_a_sample_does_not_depend_on_its_neighbours() -> None:
    torch.manual_seed(0)
    logits_TBK, lengths_B = torch.randn(9, 2, 5), torch.tensor([9, 6])
    together = ctc_losses(logits_TBK, lengths_B, torch.tensor([1, 2, 3, 4]), torch.tensor([3, 1]))
    alone = ctc_losses(logits_TBK[:6, 1:], lengths_B[1:], torch.tensor([4]), torch.tensor([1]))
    assert together[1] == pytest.approx(float(alone[0]), abs=1e-6)


SETTINGS = [
    LossSettings(),
    LossSettings(focal_gamma=2.0, focal_alpha=0.25),
    LossSettings(label_smoothing=0.1),
    LossSettings(focal_gamma=0.5, label_smoothing=0.3),
]


@pytest.mark.parametrize("settings", SETTINGS)
def test_padding_and_neighbours_change_no_loss_of_any_kind(settings: LossSettings) -> None:
    torch.manual_seed(0)
    logits_TBK, lengths_B = torch.randn(9, 2, 5), torch.tensor([9, 6])
    together = ctc_losses(
        logits_TBK, lengths_B, torch.tensor([1, 2, 3, 4]), torch.tensor([3, 1]), settings
    )
    alone = ctc_losses(
        logits_TBK[:6, 1:], lengths_B[1:], torch.tensor([4]), torch.tensor([1]), settings
    )
    assert together[1] == pytest.approx(float(alone[0]), abs=1e-6)


def test_the_focal_loss_counts_a_sample_less_the_surer_it_is_read() -> None:
    """One column, one class: p = 0.9 and 0.5; α (1 - p)^γ (-ln p) by hand."""
    logits_TBK = torch.tensor([[0.1, 0.9], [0.5, 0.5]]).log()[None]
    given = logits_TBK, torch.tensor([1, 1]), torch.tensor([1, 1]), torch.tensor([1, 1])
    assert ctc_losses(*given).tolist() == pytest.approx([0.105361, 0.693147], abs=1e-6)
    focal = ctc_losses(*given, LossSettings(focal_gamma=2.0, focal_alpha=0.25))
    assert focal.tolist() == pytest.approx(
        [0.25 * 0.1**2 * 0.105361, 0.25 * 0.5**2 * 0.693147], abs=1e-6
    )


def test_label_smoothing_is_nothing_where_odds_are_even_and_bounds_the_certainty() -> None:
    even, sure = torch.zeros(4, 1, 3), torch.tensor([20.0, 0, 0]).expand(4, 1, 3)
    given = torch.tensor([4]), torch.tensor([1]), torch.tensor([1])
    smooth = LossSettings(label_smoothing=0.5)
    assert float(ctc_losses(even, *given, smooth)[0]) == pytest.approx(
        0.5 * float(ctc_losses(even, *given)[0]), abs=1e-6
    )
    by_hand = 0.5 * float(ctc_losses(sure, *given)[0]) + 0.5 * (40 / 3 - math.log(3))
    assert float(ctc_losses(sure, *given, smooth)[0]) == pytest.approx(by_hand, rel=1e-4)


@pytest.mark.parametrize("gamma", [0.3, 1.0, 4.0])
def test_gradients_stay_finite_where_a_sample_is_read_for_certain(gamma: float) -> None:
    logits_TBK = torch.tensor([[[0.0, 200.0]]], requires_grad=True)
    ctc_losses(
        logits_TBK,
        torch.tensor([1]),
        torch.tensor([1]),
        torch.tensor([1]),
        LossSettings(focal_gamma=gamma),
    ).sum().backward()
    assert logits_TBK.grad is not None and torch.isfinite(logits_TBK.grad).all()


def test_running_statistics_move_once_a_step_by_the_mean_over_micro_batches() -> None:
    torch.manual_seed(0)
    norm, batches = MicroBatchNorm(3), [torch.randn(4, 3, 2, 5), 3 + torch.randn(4, 3, 2, 7)]
    for batch in batches:
        norm(batch)
    norm.sample_weight = 0.0
    norm(100 + torch.randn(4, 3, 2, 5))  # company: counts for nothing
    norm.absorb(norm.step_sums.clone())
    means = torch.stack([batch.mean((0, 2, 3)) for batch in batches]).mean(0)
    assert torch.allclose(norm.running_mean, 0.1 * means, atol=1e-6)
    assert not norm.step_sums.any()
