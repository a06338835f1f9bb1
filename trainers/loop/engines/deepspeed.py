"""DeepSpeed's ZeRO as an engine: it divides optimizer state, gradients and weights among workers.

Stage 1 divides the optimizer state, stage 2 gradients too, stage 3 weights too. DeepSpeed only
divides and updates. Precision, accumulation, loss scale and checkpoints are ours, so the
mathematics is that of the other engine. Gradients of all micro-batches are added up here, divided
once by the sum of the weights of all workers, and reduced at once (`coalesce_grad_reduction`). The
same torch.optim.AdamW steps, each worker on its part.

DeepSpeed's own checkpoints cannot change the number of workers (DeepSpeed#2898). Ours hold whole
tensors in torch's own form, so a run resumes with any number of workers and with either engine. The
8-bit optimizer's state is the exception (trainers/loop/engines/zero_8bit.py).
"""

import logging
import os
import threading
import time
import warnings
from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager
from typing import Any, TypeVar

import torch
from torch import Tensor, distributed, nn

from ocr.errors import UserError
from ocr.files import cache_dir
from trainers.config import TrainConfig
from trainers.config.deepspeed import filled
from trainers.families.task import Losses, MicroBatch, Task
from trainers.loop import checkpoint as checkpoints
from trainers.loop.engines.engine import Engine, optimizer_of
from trainers.loop.engines.zero_8bit import gathered, load_parts, require_whole
from trainers.loop.workers import Workers

T = TypeVar("T")
READY_SECONDS, STALE_SECONDS = 1800, 600
_MOMENTS = ("exp_avg", "exp_avg_sq")


class DeepSpeedEngine(Engine):
    """ZeRO with the stage and settings of `deepspeed.config`."""

    def __init__(
        self, task: Task, config: TrainConfig, workers: Workers, device: str, precision: str
    ) -> None:
        super().__init__(task, config, workers, device, precision)
        self.settings = filled(config.deepspeed, config.train, config.optimizer)
        self._divides_weights = self.reads_together = config.zero_stage == 3
        self._is_8bit = config.optimizer.name == "adamw_8bit"
        _require_group()
        for parameter in task.network.parameters():
            parameter.data = parameter.data.contiguous()  # DeepSpeed sends them as rows of bytes
        self.optimizer = optimizer_of(config.optimizer, task)
        self._template, self._steps = self.optimizer.state_dict()["param_groups"], 0
        self._in_order = [
            parameter for group in self.optimizer.param_groups for parameter in group["params"]
        ]
        self.engine = within(READY_SECONDS, self._initialised)
        if not self._is_8bit:  # bitsandbytes makes its own in the first step
            self._make_moments()

    def _initialised(self) -> Any:
        """Return DeepSpeed's own engine around the task's losses."""
        deepspeed, network = imported(str(self.device)), self.task.network
        if self.device.type == "cuda":
            torch.cuda.set_device(self.device)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            if self._divides_weights:
                # tensor by tensor, from the device where the task holds them
                deepspeed.zero.Init(module=network, config_dict_or_path=self.settings)
                for module, parameter in self.task.parameters_used_directly:
                    deepspeed.zero.register_external_parameter(module, parameter)
                for buffer in network.buffers():  # DeepSpeed does not move them
                    buffer.data = buffer.data.to(self.device)
            return deepspeed.initialize(
                model=_Step(self), optimizer=self.optimizer, config=self.settings
            )[0]

    def weights(self) -> dict[str, Tensor]:
        """Return all that training changes; stage 3 gathers it tensor by tensor."""
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
        """Return the moments in torch's form, gathered tensor by tensor; of 8 bits, the parts."""
        from deepspeed.utils import safe_get_full_optimizer_state

        if self._is_8bit:
            return self._parts_of_8bit()
        state: dict[int, dict[str, Tensor]] = {}
        for index, parameter in enumerate(self._in_order if self._steps else ()):
            moments = {
                key: safe_get_full_optimizer_state(parameter, key).detach().cpu().clone()
                for key in _MOMENTS
            }
            state[index] = {"step": torch.tensor(float(self._steps)), **moments}
        rate = self.optimizer.param_groups[0]["lr"]
        return {"state": state, "param_groups": [{**group, "lr": rate} for group in self._template]}

    def _parts_of_8bit(self) -> dict[str, Any]:
        flat = self.engine.optimizer.single_partition_of_fp32_groups
        state = gathered(self.optimizer, flat, self.workers) if self._steps else {}
        return {"state": state, "param_groups": self._template}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Take this worker's part of whole moments."""
        if not state["state"]:
            return
        if self._is_8bit:
            flat = self.engine.optimizer.single_partition_of_fp32_groups
            self._steps = load_parts(self.optimizer, flat, self.workers, state["state"])
            return
        require_whole(state)
        for index, parameter in enumerate(self._in_order):
            for key in _MOMENTS:
                self._set_moment(parameter, key, state["state"][index][key].to(self.device))
        self._steps = round(float(state["state"][0]["step"]))
        for held in self.optimizer.state.values():
            held["step"].fill_(self._steps)

    def _set_moment(self, parameter: nn.Parameter, key: str, value: Tensor) -> None:
        """Set this worker's part of a whole tensor.

        DeepSpeed 0.19's own function fails under stage 3 where the last worker's part is padded.
        """
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
        """Make all moments before the first step.

        In its first step DeepSpeed records which tensors hold each parameter's moments. By then
        only the first group's moments would exist.
        """
        zero = self.engine.optimizer
        parts = (
            zero.fp32_partitioned_groups_flat
            if self._divides_weights
            else zero.single_partition_of_fp32_groups
        )
        for part in parts:
            self.optimizer.state[part] = {
                "step": torch.zeros((), device=part.device),
                **{key: torch.zeros_like(part) for key in _MOMENTS},
            }
        if not self._divides_weights:
            zero._lazy_init_hp_params_optimizer_state()

    def _accumulation(self) -> AbstractContextManager[Any]:
        context: AbstractContextManager[Any] = self.engine.coalesce_grad_reduction()
        return context

    def _accumulate(self, micro_batch: MicroBatch, batch: Any) -> Losses:
        sums_B, weights_B = self.engine(micro_batch, batch)
        self.engine.backward(self._total(sums_B, micro_batch))
        return Losses(sums_B.detach(), weights_B.detach())

    def _all_reduce(self, scalars: list[float]) -> tuple[list[Tensor], list[float]]:
        parts = [sums.reshape(-1).double() for sums in self.task.statistics()]
        flat = self.workers.sum(
            torch.cat([*parts, torch.tensor(scalars, dtype=torch.float64, device=self.device)])
        )
        *statistics, sums = torch.split(flat, [*(len(part) for part in parts), len(scalars)])
        return statistics, sums.tolist()

    def _normalise(self, weight: float | None) -> None:
        """Divide by the weight, and undo the mean over workers that DeepSpeed takes."""
        if weight is None:
            for parameter in self.parameters:
                parameter.grad = None
            return
        self._fill_missing()
        for parameter in self.parameters:
            assert parameter.grad is not None
            parameter.grad.mul_(self.workers.world / weight)

    def _fill_missing(self) -> None:
        """Give a zero gradient to parameters that none of this worker's samples used.

        The other workers wait for it. Under stage 3 every sample has an image, so none is missing.
        """
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
    """The module that DeepSpeed wraps: the network as a part of the task's losses."""

    def __init__(self, engine: DeepSpeedEngine) -> None:
        super().__init__()
        self.network = engine.task.network
        self._losses = engine._losses

    def forward(self, micro_batch: MicroBatch, batch: Any) -> tuple[Tensor, Tensor]:
        """Return sums and weights of each sample's losses, [B] each."""
        losses = self._losses(micro_batch, batch)
        return losses.sums_B, losses.weights_B


def imported(device: str) -> Any:
    """Return the package deepspeed, set up for the device.

    Nothing here needs a compiled op of DeepSpeed, so the one for its CPU collectives is left out.
    Where a JSON asks for an op, it is built in a folder of ours. Locks of killed builds are removed
    from that folder, since torch waits for them for ever.
    """
    os.environ.setdefault("DS_ACCELERATOR", "cuda" if device.startswith("cuda") else "cpu")
    os.environ.setdefault("LOCAL_RANK", "0")
    extensions = cache_dir() / "torch_extensions"
    os.environ["TORCH_EXTENSIONS_DIR"] = str(extensions)
    for lock in extensions.rglob("lock"):
        if time.time() - lock.stat().st_mtime > STALE_SECONDS:
            lock.unlink(missing_ok=True)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        import deepspeed
    # torch warns about DeepSpeed's collectives
    warnings.filterwarnings("ignore", "`torch.distributed", FutureWarning)
    deepspeed.ops.__compatible_ops__["deepspeed_shm_comm"] = False
    logging.getLogger("DeepSpeed").setLevel(logging.ERROR)
    return deepspeed


def within(seconds: float, work: Callable[[], T]) -> T:
    """Return the result of `work`; UserError where it takes longer, as it then waits in vain."""
    done: list[T | BaseException] = []

    def try_it() -> None:
        try:
            done.append(work())
        except BaseException as problem:  # noqa: BLE001  (raised by the waiting thread)
            done.append(problem)

    thread = threading.Thread(target=try_it, name="lipi-deepspeed", daemon=True)
    thread.start()
    thread.join(seconds)
    if not done:
        raise UserError(
            f"DeepSpeed was not ready after {seconds:g} s: another worker is missing, or an op is "
            f"being built in {os.environ.get('TORCH_EXTENSIONS_DIR')} (remove that folder if no "
            "build runs). deepspeed.config should ask for no op; engine=all_reduce needs none"
        )
    if isinstance(done[0], BaseException):
        raise done[0]
    return done[0]


def _require_group() -> None:
    """Make a process group of one worker where a run has none (without Ray)."""
    if not distributed.is_initialized():
        distributed.init_process_group("gloo", store=distributed.HashStore(), rank=0, world_size=1)  # type: ignore[attr-defined]
