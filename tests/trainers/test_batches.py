"""Which samples make a step depends on nothing but the seed, the data and the batch sizes."""

import hashlib

import numpy as np
import pytest

from trainers.loop.batches import Plan, Prefetcher, micro_batches_of

PLAN = Plan(20 + np.arange(203) * 37 % 90, 12, 5, 7)


def test_every_pass_holds_every_sample_once_and_the_short_batch_last() -> None:
    for epoch in range(3):
        steps = [PLAN.step(epoch * PLAN.steps_per_epoch + i) for i in range(PLAN.steps_per_epoch)]
        flat = [index for step in steps for micro in step for index in micro]
        assert sorted(flat) == list(range(203))
        assert [sum(map(len, step)) for step in steps] == [12] * 16 + [11]


def test_passes_differ_and_seeds_differ_and_nothing_else_does() -> None:
    assert PLAN.step(0) != PLAN.step(PLAN.steps_per_epoch)
    assert PLAN.step(0) != Plan(PLAN.widths, 12, 5, 8).step(0)
    assert PLAN.step(3) == Plan(PLAN.widths, 12, 5, 7).step(3)


def test_samples_of_a_batch_are_alike_in_width() -> None:
    batches = [[i for micro in PLAN.step(step) for i in micro] for step in range(16)]
    spread = [int(np.ptp(PLAN.widths[batch])) for batch in batches]
    anyhow = [int(np.ptp(PLAN.widths[start : start + 12])) for start in range(0, 192, 12)]
    assert sum(spread) < sum(anyhow) / 2


def test_the_order_is_the_same_with_every_version() -> None:
    """A run may be resumed by a newer version; its order must not change under it."""
    plan = Plan(PLAN.widths, 12, 5, 7, replay_pool=60, replay_per_epoch=20)
    steps = [plan.step(step) for step in range(3 * plan.steps_per_epoch)]
    digest = hashlib.sha256(repr(steps).encode()).hexdigest()
    assert digest[:16] == "a328731bcc209a5f"


@pytest.mark.parametrize("world", [1, 2, 3, 5])
def test_the_number_of_workers_moves_micro_batches_and_changes_none(world: int) -> None:
    for step in range(20):
        turns = [micro_batches_of(PLAN, step, rank, world) for rank in range(world)]
        assert len({len(mine) for mine in turns}) == 1
        counted = {turn.index: turn.samples for mine in turns for turn in mine if turn.weight}
        assert tuple(counted[i] for i in sorted(counted)) == PLAN.step(step)


def test_the_loaders_mistake_is_raised_where_the_batch_is_used() -> None:
    def make(step: int) -> int:
        if step == 2:
            raise KeyError("sample 2")
        return step

    got = []
    with pytest.raises(KeyError, match="sample 2"):
        got += list(Prefetcher(range(5), make))
    loader = Prefetcher(range(5), lambda step: step)
    assert next(iter(loader)) == 0
    loader.close()
