"""How many workers a run has, and where they fit: by rule, and on a cluster with made-up GPUs."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from ocr.errors import UserError
from ocr.settings import load_settings
from tests.support.clusters import cluster
from tests.support.commands import PROJECT, assert_refused, call
from trainers.config import TrainConfig
from trainers.ray_cluster import connected, require_places
from trainers.runs.places import Cluster, Node, automatic, idle_gpus, lacking, matches, speed_up

TINY = str(PROJECT / "configs" / "tiny.yaml")  # 3 micro-batches a step


def config(*words: str) -> TrainConfig:
    return load_settings(TrainConfig, Path(TINY), words)


def machines(*gpus: float, cores: float = 8, **labels: str) -> Cluster:
    return Cluster([Node({"CPU": cores, "GPU": count}, labels) for count in gpus])


EIGHT = ("train.global_batch_size=8", "train.micro_batch_size=1", "threads_per_worker=null")


@pytest.mark.parametrize(
    ("words", "cluster", "count", "why"),
    [
        (EIGHT, machines(4, 2), 6, "the cluster has GPUs for 6, and a step has 8 micro-batches"),
        (EIGHT, machines(8, 8), 8, "the cluster has GPUs for 16, and a step has 8 micro-batches"),
        (EIGHT, machines(0), 8, "the cluster has cores for 8"),
        ((*EIGHT, "device=cpu"), machines(4, cores=2), 2, "the cluster has cores for 2"),
        ((*EIGHT, "device=cpu", "threads_per_worker=4"), machines(0), 2, "cores for 2"),
        ((*EIGHT, "resources_per_worker={GPU: 2}"), machines(4, 3), 3, "GPUs for 3"),
        ((*EIGHT, "resources_per_worker={CPU: 4}"), machines(4, 4), 4, "GPUs for 4"),
        (("train.micro_batch_size=12",), machines(8), 1, "a step has 1 micro-batch"),
        (EIGHT, machines(0, cores=0), 1, "cores for 0"),
    ],
)
def test_auto_is_all_that_the_cluster_has_and_a_step_can_use(
    words: tuple[str, ...], cluster: Cluster, count: int, why: str
) -> None:
    chosen, reason = automatic(config(*words), cluster)
    assert chosen == count
    assert why in reason


def test_auto_asks_an_autoscaler_for_what_it_may_bring() -> None:
    head = [Node({"CPU": 8})]
    scales = Cluster(head, most={"CPU": 500, "GPU": 6})
    assert automatic(config(*EIGHT), scales) == (
        6,
        "the cluster may get GPUs for 6, and a step has 8 micro-batches",
    )


def test_auto_counts_only_nodes_with_the_labels_and_the_kind_of_gpu() -> None:
    both = [
        Node({"CPU": 8, "GPU": 2, "accelerator_type:A100": 1}, {"zone": "a"}),
        Node({"CPU": 8, "GPU": 4, "accelerator_type:L4": 1}, {"zone": "b"}),
    ]
    for words, count in (
        ((), 6),
        (("accelerator_type=L4",), 4),
        (("label_selector={zone: a}",), 2),
        (("label_selector={zone: '!in(a, b)'}",), 1),
    ):
        assert automatic(config(*EIGHT, *words), Cluster(both))[0] == count


@pytest.mark.parametrize(
    ("want", "label", "is_match"),
    [
        ("a", "a", True),
        ("a", None, False),
        ("!a", None, True),
        ("!a", "a", False),
        ("in(a, b)", "b", True),
        ("!in(a,b)", "c", True),
    ],
)
def test_a_selector_has_rays_four_forms(want: str, label: str | None, is_match: bool) -> None:
    assert matches(label, want) is is_match


def test_gpus_that_nobody_uses_are_said_once_with_what_to_do() -> None:
    eight = machines(8)
    assert idle_gpus(config(*EIGHT), eight, 1) == "1 of 8 GPUs is used; workers=auto uses 8"
    assert idle_gpus(config(*EIGHT, "workers=8"), eight, 1) is None
    assert "a new run with a smaller train.micro_batch_size" in str(
        idle_gpus(config("train.micro_batch_size=12"), eight, 1)
    )


def test_a_worker_without_work_is_refused_with_what_to_do() -> None:
    with pytest.raises(UserError, match="a step has 3 micro-batches") as refused:
        config("workers=4")
    assert "set workers=3, or a smaller train.micro_batch_size" in str(refused.value)


@pytest.mark.parametrize(
    ("workers", "said"), [(2, "3 micro-batches in 2 rounds, 1.5"), (3, "in 1 round, 3 times")]
)
def test_the_speed_up_is_that_of_the_worker_with_the_most_to_do(workers: int, said: str) -> None:
    assert said in str(speed_up(config(f"workers={workers}")))
    assert speed_up(config()) is None


def test_what_is_missing_is_told_from_what_is_scarce() -> None:
    wanted = {"CPU": 6.0}
    assert lacking(config("workers=2"), machines(0, 0), wanted) is None
    scarce = lacking(config("workers=2"), machines(0), wanted)
    assert scarce == ("2 workers need CPU=6 each, the cluster has room for 1", False)
    nothing = lacking(config("accelerator_type=A100"), machines(1, zone="a"), wanted)
    assert nothing == (
        "a worker needs CPU=6 on an A100, and no node has that: CPU=8 GPU=1 zone=a",
        True,
    )


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (
            ["workers=0"],
            "from 1, auto, or {min: 1, max: 8}, got 0",
        ),
        (
            ["workers=many"],
            "from 1, auto, or {min: 1, max: 8}, got 'many'",
        ),
        (["resources_per_worker={gpu: 1}"], "gpu: Ray's name of it is GPU"),
        (["resources_per_worker={GPU: 0.5}"], "GPU: expected a whole number, found 0.5"),
        (["resources_per_worker={CPU: 0}"], "CPU: a worker needs one at least"),
        (["resources_per_worker={x: many}"], "x: expected a number from 0, found 'many'"),
        (["resources_per_worker=4"], "expected a mapping such as {CPU: 4, GPU: 1}"),
        (["label_selector={zone: a b}"], "zone: expected value, !value, in(a, b)"),
        (["device=cpu", "resources_per_worker={GPU: 1}"], "contradicts resources_per_worker.GPU=1"),
    ],
)
def test_bad_values_are_refused_at_once(words: list[str], message: str) -> None:
    with pytest.raises(UserError) as refused:
        config(*words)
    assert message in str(refused.value)


@pytest.fixture(scope="module")
def special() -> Iterator[dict[str, str]]:
    """One node with four GPUs that do not exist, a resource of its own and a label."""
    with cluster(
        6471,
        "--num-cpus=3",
        "--num-gpus=4",
        '--resources={"special": 2}',
        "--labels=zone=here",
    ) as env:
        yield env


@pytest.mark.long
def test_a_cluster_is_asked_for_the_number_of_workers(
    special: dict[str, str], tmp_path: Path
) -> None:
    words = (f"storage_path={tmp_path}", "workers=auto", "list_samples=only")
    done = call("train", TINY, *words, **special)
    assert done.returncode == 0, done.stderr
    assert (
        "workers=auto: 3, since the cluster has GPUs for 3, and a step has 3 micro-batches"
        in done.stdout
    )


@pytest.mark.long
def test_workers_go_where_their_resources_and_labels_are(
    special: dict[str, str], tmp_path: Path
) -> None:
    words = ("device=cpu", "label_selector={zone: here}", "resources_per_worker={special: 1}")
    done = call("train", TINY, f"storage_path={tmp_path}", "workers=auto", *words, **special)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "workers=auto: 2, since the cluster has cores for 2" in done.stdout
    assert (tmp_path / "tiny" / "report.html").is_file()


@pytest.mark.long
@pytest.mark.parametrize(
    ("word", "message"),
    [
        ("label_selector={zone: there}", "on nodes with zone=there, and no node has that"),
        ("accelerator_type=A100", "on an A100, and no node has that"),
        ("resources_per_worker={special: 5}", "a worker needs CPU=1 special=5, and no node"),
    ],
)
def test_what_no_node_has_is_one_message_and_no_silent_wait(
    word: str, message: str, special: dict[str, str], tmp_path: Path
) -> None:
    done = call("train", TINY, f"storage_path={tmp_path}", "device=cpu", word, **special)
    assert_refused(done, message, "label_selector, or add such a node")


def test_idle_gpus_and_scarce_places_are_said_before_the_workers_start(
    special: dict[str, str], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    for name, value in special.items():
        monkeypatch.setenv(name, value)
    with connected(config("workers=2")):
        require_places(config("workers=2"), {"CPU": 1, "GPU": 1})
        require_places(config("workers=3"), {"CPU": 1, "special": 1})
    said = capsys.readouterr().out.splitlines()
    assert said == [
        "2 of 4 GPUs are used; workers=auto uses 3",
        "waiting for nodes: 3 workers need CPU=1 special=1 each, the cluster has room for 2",
    ]
