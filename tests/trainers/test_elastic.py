"""How many workers a run may have, and what is asked of Ray for it."""

import pytest

from ocr.errors import UserError
from ocr.settings import load_settings
from tests.support.commands import PROJECT
from trainers.config import TrainConfig
from trainers.ray_cluster import scaling
from trainers.runs.places import Cluster, Node, lacking

TINY = PROJECT / "configs" / "tiny.yaml"


def config(*words: str) -> TrainConfig:
    return load_settings(TrainConfig, TINY, list(words))


def test_a_range_is_short_for_two_settings() -> None:
    short, long = config("workers={min: 1, max: 3}"), config("workers=3", "min_workers=1")
    assert short == long
    assert (short.worker_count, short.least_workers) == (3, 1)
    assert config("workers=3").least_workers == 3


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (["workers={min: 4, max: 3}"], "min_workers=4: more than workers=3"),
        (["workers={min: 0, max: 3}"], "min_workers"),
        (["workers={min: 1}"], "expected a whole number from 1, auto, or"),
        (["workers={min: 1, max: 2}", "min_workers=1"], "leave min_workers out"),
        (["workers={min: 1, max: 30}"], "micro-batches and nothing for the other workers"),
    ],
)
def test_a_range_that_makes_no_sense_is_refused(words: list[str], says: str) -> None:
    with pytest.raises(UserError, match=says):
        config(*words)


def test_ray_is_asked_for_a_range_only_where_there_is_one() -> None:
    one = {"CPU": 1.0}
    assert scaling(config("workers=3"), one, use_gpu=False).num_workers == 3
    assert scaling(config("workers={min: 2, max: 3}"), one, use_gpu=False).num_workers == (2, 3)
    assert scaling(config("workers={min: 3, max: 3}"), one, use_gpu=False).num_workers == 3


def test_room_for_the_fewest_is_room() -> None:
    two = Cluster([Node({"CPU": 1.0}), Node({"CPU": 1.0})])
    assert lacking(config("workers={min: 2, max: 3}"), two, {"CPU": 1.0}) is None
    assert lacking(config("workers=3"), two, {"CPU": 1.0}) == (
        "3 workers need CPU=1 each, the cluster has room for 2",
        False,
    )
