"""TRL's SFTTrainer on the same model and adapter (PEFT), batches, optimizer and schedule.

Options: config, overrides, steps.
"""

from meter import Request
from train_hf import Noting, batches, settings, trained
from trl import SFTConfig, SFTTrainer
from vlm_meter import Bench, Trained, Watch


class TrlTrainer(Noting, SFTTrainer):
    """TRL's own."""


def measure(request: Request) -> Trained:
    """Train so many steps; its loss makes no logits of the whole batch at once, whatever its
    settings.
    """
    bench = Bench(request)
    watch = Watch(bench)
    arguments = SFTConfig(
        **settings(bench), dataset_kwargs={"skip_prepare_dataset": True}, max_length=None
    )
    return trained(
        watch,
        TrlTrainer(
            bench.task.network.model,
            arguments,
            processing_class=bench.task.base.tokenizer,
            **batches(bench),
        ),
    )
