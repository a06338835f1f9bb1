"""Engines: how the gradients of all workers become one step."""

from trainers.config import TrainConfig
from trainers.families.task import Task
from trainers.loop.engines.all_reduce import AllReduceEngine
from trainers.loop.engines.engine import Engine
from trainers.loop.workers import Workers


def engine_for(
    task: Task, config: TrainConfig, workers: Workers, device: str, precision: str
) -> Engine:
    """Return the engine that the config names, for a network with the weights to start from."""
    if config.engine == "deepspeed":
        from trainers.loop.engines.deepspeed import DeepSpeedEngine

        return DeepSpeedEngine(task, config, workers, device, precision)
    return AllReduceEngine(task, config, workers, device, precision)
