"""Checkpoints: written whole or not at all, verified by hashes, chosen and pruned here alone.

    checkpoint_000200/
      model.safetensors   every trained parameter and every buffer that training changes
      optimizer.pt        the optimizer's state (torch.load with weights_only)
      state.json          TrainState and the environment
      config.yaml         the resolved settings
      metrics.jsonl       the run's lines before this step
      manifest.json       {format, run, step, files: {name: SHA-256}}, written last
    checkpoint_000200.eval.json   the result of its evaluation

A directory is made under a temporary name, synced, given its manifest, and renamed. A reader
therefore finds it whole, or damaged afterwards, which a hash shows. (Over 300 lines, because
nothing else may write, choose or delete a checkpoint.)
"""

import re
import shutil
import threading
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from ocr.errors import UserError
from ocr.files import read_json, sha256_of, sync, write_json
from ocr.system_errors import reported
from trainers.loop import faults
from trainers.loop.lease import Writer

FORMAT = 1
MANIFEST, MODEL, OPTIMIZER, STATE, CONFIG, METRICS = (
    "manifest.json",
    "model.safetensors",
    "optimizer.pt",
    "state.json",
    "config.yaml",
    "metrics.jsonl",
)
_NAME = re.compile(r"checkpoint_(\d+)")


@dataclass(frozen=True, slots=True)
class Checkpoint:
    """A directory whose every file was verified by its hash."""

    path: Path
    step: int
    manifest_sha256: str

    def state(self) -> dict[str, Any]:
        """Return the content of state.json."""
        return dict(read_json(self.path / STATE))

    def metrics(self) -> str:
        """Return the lines of metrics.jsonl before this step."""
        return (self.path / METRICS).read_text(encoding="utf-8")

    def weights(self) -> dict[str, Tensor]:
        """Return trained parameters and changed buffers by name, on the CPU."""
        from safetensors.torch import load_file

        return load_file(self.path / MODEL)

    def optimizer(self) -> dict[str, Any]:
        """Return the optimizer's state_dict, on the CPU."""
        return dict(torch.load(self.path / OPTIMIZER, map_location="cpu", weights_only=True))


@dataclass(frozen=True, slots=True)
class Snapshot:
    """A copy on the CPU of all that a checkpoint holds; training continues while it is written."""

    step: int
    weights: dict[str, Tensor]
    optimizer: dict[str, Any]
    state: dict[str, Any]
    config_yaml: str
    metrics: str


class DamagedCheckpoint(UserError):
    """A checkpoint that does not verify; the message names the file."""


def directory_of(run_dir: Path, step: int) -> Path:
    """Return the directory of a step's checkpoint, such as `checkpoint_000200`."""
    return run_dir / f"checkpoint_{step:06d}"


def evaluation_of(run_dir: Path, step: int) -> Path:
    """Return the file beside a checkpoint that holds its evaluation."""
    return run_dir / f"checkpoint_{step:06d}.eval.json"


def trained_state(network: nn.Module) -> dict[str, Tensor]:
    """Return copies on the CPU of all that training changes.

    These are parameters that require a gradient, and persistent buffers.
    """
    return {
        name: tensor.detach().cpu().clone().contiguous()
        for name, tensor in _trained(network).items()
    }


def load_trained_state(network: nn.Module, weights: Mapping[str, Tensor]) -> None:
    """Put a checkpoint's weights into a network; UserError where names or shapes differ."""
    live = _trained(network)
    differing = sorted(set(weights) ^ set(live)) or [
        name for name, tensor in live.items() if tensor.shape != weights[name].shape
    ]
    if differing:
        raise UserError(
            f"the checkpoint has another network's weights: {', '.join(differing[:5])} differ"
        )
    with torch.no_grad():
        for name, tensor in live.items():
            tensor.copy_(weights[name])


def load_for_export(
    network: nn.Module, weights: Mapping[str, Tensor], initial_share: float
) -> None:
    """Put a checkpoint's weights into a network that holds the initial weights.

    A share of the initial weights stays (Wortsman et al. 2022, WiSE-FT).
    """
    initial = (
        {name: tensor.detach().clone() for name, tensor in _trained(network).items()}
        if initial_share
        else {}
    )
    load_trained_state(network, weights)
    with torch.no_grad():
        for name, tensor in _trained(network).items():
            if name in initial and tensor.is_floating_point():
                tensor.lerp_(initial[name], initial_share)


def _trained(network: nn.Module) -> dict[str, Tensor]:
    """Return the live tensors; a state_dict has bitsandbytes' own tensors too."""
    buffers = {
        f"{path}.{name}" if path else name: buffer
        for path, module in network.named_modules()
        for name, buffer in module.named_buffers(recurse=False)
        if name not in module._non_persistent_buffers_set
    }
    return {
        **{
            name: parameter
            for name, parameter in network.named_parameters()
            if parameter.requires_grad
        },
        **buffers,
    }


def not_finite(weights: Mapping[str, Tensor]) -> list[str]:
    """Return the names of tensors with a NaN or an infinity; no such checkpoint is written."""
    return [
        name
        for name, tensor in weights.items()
        if tensor.is_floating_point() and not bool(torch.isfinite(tensor).all())
    ]


def write_checkpoint(run_dir: Path, run_id: str, snapshot: Snapshot, writer: Writer) -> Checkpoint:
    """Write, hash, rename and read back one checkpoint of the run with this identity.

    UserError for a full disk: the path, the free bytes, and what a checkpoint needs.
    """
    needed = f"the checkpoint of step {snapshot.step} needs {_bytes_of(snapshot):,}"
    with reported(directory_of(run_dir, snapshot.step), again(run_dir), needed):
        return _write(run_dir, run_id, snapshot, writer)


def again(run_dir: Path) -> str:
    """Return the advice after a failed write, and whether checkpoints stand."""
    stand = "; the checkpoints before it are intact" if steps_of(run_dir) else ""
    return f"set storage_path to a larger disk, and run the same command again{stand}"


def _bytes_of(snapshot: Snapshot) -> int:
    """Return about the bytes of a checkpoint's files."""
    tensors = [*snapshot.weights.values(), *_tensors(snapshot.optimizer)]
    texts = len(snapshot.metrics) + len(snapshot.config_yaml)
    return sum(tensor.numel() * tensor.element_size() for tensor in tensors) + texts


def _tensors(value: Any) -> Iterable[Tensor]:
    if isinstance(value, Tensor):
        return [value]
    inner = value.values() if isinstance(value, Mapping) else value
    if not isinstance(value, (Mapping, list, tuple)):
        return []
    return [tensor for one in inner for tensor in _tensors(one)]


def _write(run_dir: Path, run_id: str, snapshot: Snapshot, writer: Writer) -> Checkpoint:
    final, step = directory_of(run_dir, snapshot.step), snapshot.step
    making = run_dir / f".{final.name}.{writer.token[:8]}.tmp"
    shutil.rmtree(making, ignore_errors=True)
    try:
        making.mkdir()
        _write_files(making, snapshot)
        faults.point("before_manifest", step)
        names = (MODEL, OPTIMIZER, STATE, CONFIG, METRICS)
        for name in names:
            sync(making / name)
        hashes = {name: sha256_of(making / name) for name in names}
        manifest = {"format": FORMAT, "run": run_id, "step": step, "files": hashes}
        write_json(making / MANIFEST, manifest)
        faults.point("after_manifest", step)
        sync(making)
        writer.require()
        faults.point("before_rename", step)
        if final.exists():  # the same step of an earlier attempt
            _remove(final)
        making.rename(final)
        sync(run_dir)
    finally:
        shutil.rmtree(making, ignore_errors=True)
    return verify_hashes(final, run_id)


def _write_files(folder: Path, snapshot: Snapshot) -> None:
    from safetensors.torch import save_file

    save_file(snapshot.weights, folder / MODEL)
    torch.save(snapshot.optimizer, folder / OPTIMIZER)
    write_json(folder / STATE, snapshot.state)
    (folder / CONFIG).write_text(snapshot.config_yaml, encoding="utf-8")
    (folder / METRICS).write_text(snapshot.metrics, encoding="utf-8")


def verify_hashes(path: Path, run_id: str | None = None) -> Checkpoint:
    """Return the checkpoint at `path` with every hash recomputed.

    Raises DamagedCheckpoint with the file and its problem.
    """
    name = _NAME.fullmatch(path.name)
    if not name or not path.is_dir():
        raise DamagedCheckpoint(f"{path}: not a checkpoint directory")
    manifest = path / MANIFEST
    if not manifest.is_file():
        is_empty = not any(path.iterdir())
        raise DamagedCheckpoint(
            f"{manifest}: missing{'; the directory is empty' if is_empty else ''}"
        )
    try:
        values = read_json(manifest)
        files, step, of_run = dict(values["files"]), values["step"], values["run"]
    except (ValueError, KeyError, TypeError) as problem:
        raise DamagedCheckpoint(f"{manifest}: damaged: {problem}") from None
    if run_id is not None and of_run != run_id:
        raise DamagedCheckpoint(f"{manifest}: the manifest of another run")
    if step != int(name[1]):
        raise DamagedCheckpoint(f"{manifest}: the manifest of step {step}")
    for file, expected in files.items():
        if not (path / file).is_file():
            raise DamagedCheckpoint(f"{path / file}: missing")
        if sha256_of(path / file) != expected:
            raise DamagedCheckpoint(f"{path / file}: not what was written (its SHA-256 differs)")
    return Checkpoint(path, step, sha256_of(manifest))


def steps_of(run_dir: Path) -> list[int]:
    """Return the steps of all checkpoint directories, good or not, in order."""
    return sorted(
        int(name[1])
        for entry in run_dir.iterdir()
        if entry.is_dir() and (name := _NAME.fullmatch(entry.name))
    )


def newest_good(run_dir: Path, run_id: str | None) -> tuple[Checkpoint | None, list[str]]:
    """Return the newest checkpoint that verifies (None without any), and newer ones' problems.

    `run_id`: that of the run; None takes any.
    """
    damaged: list[str] = []
    for step in reversed(steps_of(run_dir)):
        try:
            return verify_hashes(directory_of(run_dir, step), run_id), damaged
        except DamagedCheckpoint as problem:
            damaged.append(str(problem))
    return None, damaged


def set_aside(run_dir: Path, step: int) -> None:
    """Move every checkpoint after `step` to abandoned/, and delete its evaluation."""
    for later in [later for later in steps_of(run_dir) if later > step]:
        (run_dir / "abandoned").mkdir(exist_ok=True)
        target, copy = run_dir / "abandoned" / directory_of(run_dir, later).name, 1
        while target.exists():
            target, copy = target.with_name(f"{directory_of(run_dir, later).name}.{copy}"), copy + 1
        directory_of(run_dir, later).rename(target)
    for later in [later for later in evaluations(run_dir) if later > step]:
        evaluation_of(run_dir, later).unlink()


def evaluations(run_dir: Path) -> dict[int, dict[str, Any]]:
    """Return step → result of its evaluation, in order.

    A torn or foreign file is left out, and its evaluation is made again.
    """
    results: dict[int, dict[str, Any]] = {}
    for file in sorted(run_dir.glob("checkpoint_*.eval.json")):
        name = _NAME.fullmatch(file.name.removesuffix(".eval.json"))
        try:
            value = read_json(file)
        except ValueError:
            continue
        if name and isinstance(value, dict) and value.get("step") == int(name[1]):
            results[int(name[1])] = value
    return results


def clear_leftovers(run_dir: Path) -> None:
    """Remove the directories under temporary names that a killed writer left."""
    for entry in [*run_dir.glob(".checkpoint_*.tmp"), *run_dir.glob(".checkpoint_*.deleted")]:
        shutil.rmtree(entry, ignore_errors=True)


def prune(run_dir: Path, keep_last: int, keep: Iterable[int]) -> None:
    """Delete all but the newest `keep_last` checkpoints and those of the steps in `keep`."""
    stay = {*steps_of(run_dir)[-keep_last:], *keep}
    for step in steps_of(run_dir):
        if step not in stay:
            _remove(directory_of(run_dir, step))


def _remove(path: Path) -> None:
    """Rename, then delete: a kill in between leaves no partial checkpoint under its name."""
    gone = path.with_name(f".{path.name}.deleted")
    shutil.rmtree(gone, ignore_errors=True)
    path.rename(gone)
    shutil.rmtree(gone, ignore_errors=True)


class CheckpointThread:
    """Writes snapshots in a thread, one at a time; the next `save` or `wait` raises a problem."""

    def __init__(self, write: Callable[[Snapshot], None]) -> None:
        self._write = write
        self._thread: threading.Thread | None = None
        self._problem: BaseException | None = None

    def save(self, snapshot: Snapshot) -> None:
        """Wait for the snapshot before, then start writing this one."""
        self.wait()
        self._thread = threading.Thread(target=self._work, args=(snapshot,), name="lipi-checkpoint")
        self._thread.start()

    def wait(self) -> None:
        """Wait until the snapshot in flight, if any, is published."""
        if self._thread:
            self._thread.join()
            self._thread = None
        if self._problem:
            problem, self._problem = self._problem, None
            raise problem

    def _work(self, snapshot: Snapshot) -> None:
        try:
            self._write(snapshot)
        except OSError as problem:
            self._problem = UserError(
                f"checkpoint of step {snapshot.step}: {problem}; run the same command again"
            )
            self._problem.__cause__ = problem
        except BaseException as problem:  # noqa: BLE001  (raised by the training thread)
            self._problem = problem
