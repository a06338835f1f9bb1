"""DeepSpeed's ZeRO behind the same verbs: optimizer state (stage 1), gradients (2) and weights (3) divided among the workers.

DeepSpeed only divides and updates. Precision, accumulation, loss scale and checkpoints are ours, so the mathematics is the other
engine's: gradients of all micro-batches are added up here, divided once by the sum of the weights of all workers, met in one pass
(`coalesce_grad_reduction`), clipped and stepped with by the same torch.optim.AdamW, each worker on its part.

DeepSpeed's own checkpoints cannot change the number of workers (DeepSpeed#2898). Ours hold whole tensors in torch's own form, so a run
goes on with any number of workers and with either engine.
"""

import logging
import os
import tempfile
import warnings
from collections.abc import Mapping
from contextlib import AbstractContextManager
from typing import Any

import torch
from torch import Tensor, distributed, nn

from trainers import checkpoint as checkpoints
from trainers.batches import Turn
from trainers.config import TrainConfig
from trainers.deepspeed_settings import filled
from trainers.engines.engine import Engine, optimizer_of
from trainers.task import Losses, Task
from trainers.workers import Workers

_MOMENTS = ("exp_avg", "exp_avg_sq")


class DeepSpeedEngine(Engine):
    """ZeRO as the JSON of `deepspeed.config` has it."""

    def __init__(self, task: Task, config: TrainConfig, workers: Workers, device: str, precision: str) -> None:
        super().__init__(task, config, workers, device, precision)
        self.settings = filled(config)
        self._divides_weights = self.reads_together = config.zero_stage == 3
        deepspeed = imported(device)
        _require_group()
        for parameter in task.network.parameters():
            parameter.data = parameter.data.contiguous()  # DeepSpeed sends them as rows of bytes
        self.optimizer = optimizer_of(config.optimizer, task.network)
        self._template, self._steps = self.optimizer.state_dict()["param_groups"], 0
        self._in_order = [parameter for group in self.optimizer.param_groups for parameter in group["params"]]
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            if self._divides_weights:
                deepspeed.zero.Init(module=task.network, config_dict_or_path=self.settings)  # tensor by tensor, from wherever the task holds them
                for parameter in getattr(task.network, "parameters_used_directly", ()):
                    deepspeed.zero.register_external_parameter(task.network, parameter)
            self.engine, *_ = deepspeed.initialize(model=_Step(self), optimizer=self.optimizer, config=self.settings)
        if self._divides_weights:  # DeepSpeed leaves buffers of a network that it divided itself where they are
            for buffer in task.network.buffers():
                buffer.data = buffer.data.to(self.device)
        self._make_moments()

    def weights(self) -> dict[str, Tensor]:
        """See Engine; under stage 3 gathered tensor by tensor."""
        if not self._divides_weights:
            return super().weights()
        from deepspeed.utils import safe_get_full_fp32_param

        held = checkpoints.trained_state(self.task.network)
        trained = {name: parameter for name, parameter in self.task.network.named_parameters() if parameter.requires_grad}
        return {name: safe_get_full_fp32_param(trained[name]).detach().cpu().clone() if name in trained else tensor for name, tensor in held.items()}

    def state_dict(self) -> dict[str, Any]:
        """See Engine."""
        from deepspeed.utils import safe_get_full_optimizer_state

        state: dict[int, dict[str, Tensor]] = {}
        for index, parameter in enumerate(self._in_order if self._steps else ()):
            moments = {key: safe_get_full_optimizer_state(parameter, key).detach().cpu().clone() for key in _MOMENTS}
            state[index] = {"step": torch.tensor(float(self._steps)), **moments}
        rate = self.optimizer.param_groups[0]["lr"]
        return {"state": state, "param_groups": [{**group, "lr": rate} for group in self._template]}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """See Engine."""
        from deepspeed.utils import safe_set_full_optimizer_state

        if not state["state"]:
            return
        for index, parameter in enumerate(self._in_order):
            for key in _MOMENTS:
                safe_set_full_optimizer_state(parameter, state["state"][index][key].to(self.device), key)
        self._steps = round(float(state["state"][0]["step"]))
        for held in self.optimizer.state.values():
            held["step"].fill_(self._steps)

    def _make_moments(self) -> None:
        """DeepSpeed notes where each parameter's moments are in the first step, after the first group alone has some: so all are there before it."""
        zero = self.engine.optimizer
        for part in zero.fp32_partitioned_groups_flat if self._divides_weights else zero.single_partition_of_fp32_groups:
            self.optimizer.state[part] = {"step": torch.zeros((), device=part.device), **{key: torch.zeros_like(part) for key in _MOMENTS}}
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
        flat = self.workers.sum(torch.cat([*pieces, torch.tensor(scalars, dtype=torch.float64, device=self.device)]))
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
    """The package, told which device it is for, and that nothing is to be compiled.

    Nothing here needs an op of DeepSpeed's, and torch's lock of a build that was killed makes every later process wait for ever: so
    extensions go to a folder that is this process's own, and the one that DeepSpeed would build for its CPU collectives is left out.
    """
    os.environ.setdefault("DS_ACCELERATOR", "cuda" if device.startswith("cuda") else "cpu")
    os.environ.setdefault("LOCAL_RANK", "0")
    os.environ["TORCH_EXTENSIONS_DIR"] = tempfile.mkdtemp(prefix="lipi-extensions-")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        import deepspeed
    deepspeed.ops.__compatible_ops__["deepspeed_shm_comm"] = False
    logging.getLogger("DeepSpeed").setLevel(logging.ERROR)
    return deepspeed


def _require_group() -> None:
    """A process group of one for a run without Ray."""
    if not distributed.is_initialized():
        distributed.init_process_group("gloo", store=distributed.HashStore(), rank=0, world_size=1)
