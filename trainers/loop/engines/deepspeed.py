"""DeepSpeed's ZeRO behind the same verbs: optimizer state (stage 1), gradients (2) and weights (3) divided among the workers.

DeepSpeed only divides and updates. Precision, accumulation, loss scale and checkpoints are ours, so the mathematics is the other
engine's: gradients of all micro-batches are added up here, divided once by the sum of the weights of all workers, met in one pass
(`coalesce_grad_reduction`), clipped and stepped with by the same torch.optim.AdamW, each worker on its part.

DeepSpeed's own checkpoints cannot change the number of workers (DeepSpeed#2898). Ours hold whole tensors in torch's own form, so a run
goes on with any number of workers and with either engine.
"""

import logging
import os
import threading
import time
import warnings
from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any, TypeVar

import torch
from torch import Tensor, distributed, nn

from ocr.errors import UserError
from trainers.config import TrainConfig
from trainers.config.deepspeed import filled
from trainers.families.task import Losses, Task
from trainers.loop import checkpoint as checkpoints
from trainers.loop.batches import Turn
from trainers.loop.engines.engine import Engine, optimizer_of
from trainers.loop.workers import Workers

T = TypeVar("T")
READY_SECONDS, STALE_SECONDS = 1800, 600
_MOMENTS = ("exp_avg", "exp_avg_sq")


class DeepSpeedEngine(Engine):
    """ZeRO as the JSON of `deepspeed.config` has it."""

    def __init__(
        self, task: Task, config: TrainConfig, workers: Workers, device: str, precision: str
    ) -> None:
        super().__init__(task, config, workers, device, precision)
        self.settings = filled(config)
        self._divides_weights = self.reads_together = config.zero_stage == 3
        _require_group()
        for parameter in task.network.parameters():
            parameter.data = parameter.data.contiguous()  # DeepSpeed sends them as rows of bytes
        self.optimizer = optimizer_of(config.optimizer, task.network)
        self._template, self._steps = self.optimizer.state_dict()["param_groups"], 0
        self._in_order = [
            parameter for group in self.optimizer.param_groups for parameter in group["params"]
        ]
        self.engine = within(READY_SECONDS, self._initialised)
        self._make_moments()

    def _initialised(self) -> Any:
        """DeepSpeed's own engine around the task's losses."""
        deepspeed, network = imported(str(self.device)), self.task.network
        if self.device.type == "cuda":
            torch.cuda.set_device(self.device)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            if self._divides_weights:
                deepspeed.zero.Init(
                    module=network, config_dict_or_path=self.settings
                )  # tensor by tensor, from wherever the task holds them
                for parameter in getattr(network, "parameters_used_directly", ()):
                    deepspeed.zero.register_external_parameter(network, parameter)
                for buffer in network.buffers():  # which it leaves where they are
                    buffer.data = buffer.data.to(self.device)
            return deepspeed.initialize(
                model=_Step(self), optimizer=self.optimizer, config=self.settings
            )[0]

    def weights(self) -> dict[str, Tensor]:
        """See Engine; under stage 3 gathered tensor by tensor."""
        if not self._divides_weights:
            return super().weights()
        from deepspeed.utils import safe_get_full_fp32_param

        held = checkpoints.trained_state(self.task.network)
        trained = {
            name: parameter
            for name, parameter in self.task.network.named_parameters()
            if parameter.requires_grad
        }
        return {
            name: safe_get_full_fp32_param(trained[name]).detach().cpu().clone()
            if name in trained
            else tensor
            for name, tensor in held.items()
        }

    def state_dict(self) -> dict[str, Any]:
        """See Engine."""
        from deepspeed.utils import safe_get_full_optimizer_state

        state: dict[int, dict[str, Tensor]] = {}
        for index, parameter in enumerate(self._in_order if self._steps else ()):
            moments = {
                key: safe_get_full_optimizer_state(parameter, key).detach().cpu().clone()
                for key in _MOMENTS
            }
            state[index] = {"step": torch.tensor(float(self._steps)), **moments}
        rate = self.optimizer.param_groups[0]["lr"]
        return {"state": state, "param_groups": [{**group, "lr": rate} for group in self._template]}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """See Engine."""
        if not state["state"]:
            return
        for index, parameter in enumerate(self._in_order):
            for key in _MOMENTS:
                self._set_moment(parameter, key, state["state"][index][key].to(self.device))
        self._steps = round(float(state["state"][0]["step"]))
        for held in self.optimizer.state.values():
            held["step"].fill_(self._steps)

    def _set_moment(self, parameter: nn.Parameter, key: str, value: Tensor) -> None:
        """This worker's part of a whole tensor; DeepSpeed 0.19's own way fails under stage 3 where the last worker's part is padded."""
        from deepspeed.utils import safe_set_full_optimizer_state, safe_set_local_optimizer_state

        if not self._divides_weights:
            safe_set_full_optimizer_state(parameter, value, key)
            return
        size = parameter.ds_tensor.ds_numel  # type: ignore[attr-defined]
        padded = torch.nn.functional.pad(
            value.flatten(), (0, size * self.workers.world - value.numel())
        )
        safe_set_local_optimizer_state(parameter, padded[self.workers.rank * size :][:size], key)

    def _make_moments(self) -> None:
        """DeepSpeed notes where each parameter's moments are in the first step, after the first group alone has some: so all are there before it."""
        zero = self.engine.optimizer
        for part in (
            zero.fp32_partitioned_groups_flat
            if self._divides_weights
            else zero.single_partition_of_fp32_groups
        ):
            self.optimizer.state[part] = {
                "step": torch.zeros((), device=part.device),
                **{key: torch.zeros_like(part) for key in _MOMENTS},
            }
        if not self._divides_weights:
            zero._lazy_init_hp_params_optimizer_state()

    def _one_meeting(self) -> AbstractContextManager[Any]:
        context: AbstractContextManager[Any] = self.engine.coalesce_grad_reduction()
        return context

    def _gather(self, turn: Turn, batch: Any) -> Losses:
        sums_B, weights_B = self.engine(turn, batch)
        self.engine.backward(self._total(sums_B, turn))
        return Losses(sums_B.detach(), weights_B.detach())

    def _meet(self, scalars: list[float]) -> tuple[list[Tensor], list[float]]:
        statistics = self.task.statistics()
        pieces = [sums.reshape(-1).double() for sums in statistics]
        flat = self.workers.sum(
            torch.cat([*pieces, torch.tensor(scalars, dtype=torch.float64, device=self.device)])
        )
        *met, scalars_met = torch.split(flat, [*(len(piece) for piece in pieces), len(scalars)])
        return met, scalars_met.tolist()

    def _average(self, weight: float | None) -> None:
        """DeepSpeed takes the mean over workers: theirs is divided out with the weight."""
        if weight is None:
            for parameter in self.parameters:
                parameter.grad = None
            return
        self._fill_missing()
        for parameter in self.parameters:
            assert parameter.grad is not None
            parameter.grad.mul_(self.workers.world / weight)

    def _fill_missing(self) -> None:
        """A part that no image of this worker's went through has no gradient, but the others wait for it; under stage 3 every sample has an image."""
        for parameter in self.parameters:
            if parameter.grad is None:
                parameter.grad = torch.zeros_like(parameter)

    def _update(self, rate: float) -> float:
        for group in self.optimizer.param_groups:
            group["lr"] = rate
        self.engine.step()
        self._steps += self.engine.was_step_applied()
        return float(self.engine.get_global_grad_norm())


class _Step(nn.Module):
    """What DeepSpeed wraps: the network as a part of the task's losses."""

    def __init__(self, engine: DeepSpeedEngine) -> None:
        super().__init__()
        self.network = engine.task.network
        self._losses = engine._losses

    def forward(self, turn: Turn, batch: Any) -> tuple[Tensor, Tensor]:
        """Sums and weights of each sample's losses, [B] each."""
        losses = self._losses(turn, batch)
        return losses.sums_B, losses.weights_B


def imported(device: str) -> Any:
    """The package, told which device it is for.

    Nothing here needs a compiled op of DeepSpeed's, so the one that it would build for its CPU collectives is left out. Should a JSON ask
    for one all the same, it is built in a folder of our own, without the locks that killed builds left: torch waits for those for ever.
    """
    os.environ.setdefault("DS_ACCELERATOR", "cuda" if device.startswith("cuda") else "cpu")
    os.environ.setdefault("LOCAL_RANK", "0")
    extensions = (
        Path(os.environ.get("LIPI_CACHE", Path.home() / ".cache" / "lipi")) / "torch_extensions"
    )
    os.environ["TORCH_EXTENSIONS_DIR"] = str(extensions)
    for lock in extensions.rglob("lock"):
        if time.time() - lock.stat().st_mtime > STALE_SECONDS:
            lock.unlink(missing_ok=True)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        import deepspeed
    warnings.filterwarnings(
        "ignore", "`torch.distributed", FutureWarning
    )  # of torch to DeepSpeed's collectives
    deepspeed.ops.__compatible_ops__["deepspeed_shm_comm"] = False
    logging.getLogger("DeepSpeed").setLevel(logging.ERROR)
    return deepspeed


def within(seconds: float, work: Callable[[], T]) -> T:
    """What `work` gives; UserError where it takes longer, for it then waits for something that will not come."""
    done: list[T | BaseException] = []

    def try_it() -> None:
        try:
            done.append(work())
        except BaseException as problem:  # noqa: BLE001  raised again by the thread that waits
            done.append(problem)

    thread = threading.Thread(target=try_it, name="lipi-deepspeed", daemon=True)
    thread.start()
    thread.join(seconds)
    if not done:
        raise UserError(
            f"DeepSpeed was not ready after {seconds:g} s: another worker is missing, or an op is being built in {os.environ.get('TORCH_EXTENSIONS_DIR')} "
            "(remove that folder if no build runs). deepspeed.config should ask for none; engine=all_reduce needs none"
        )
    if isinstance(done[0], BaseException):
        raise done[0]
    return done[0]


def _require_group() -> None:
    """A process group of one for a run without Ray."""
    if not distributed.is_initialized():
        distributed.init_process_group("gloo", store=distributed.HashStore(), rank=0, world_size=1)  # type: ignore[attr-defined]
