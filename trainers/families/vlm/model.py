"""A vision-language base with its adapter, as the module that training changes."""

import re
from collections.abc import Iterator, Mapping
from typing import Any

import torch
from torch import Tensor, nn

from ocr.scoring import COUNTS_SIZE
from trainers.config import LossSettings, TrainConfig
from trainers.families.vlm.losses import Confusion, token_losses


class AdaptedModel(nn.Module):
    """The base with its adapter, and statistics of training batches: all that training changes."""

    def __init__(
        self, model: nn.Module, vocabulary: int, config: TrainConfig, device: torch.device
    ) -> None:
        super().__init__()
        self.model = model
        self.confusion = (
            Confusion(vocabulary, config.loss).to(device) if config.loss.confusion_weight else None
        )
        self.read_since_log: Tensor  # edit counts of training batches
        self.read_in_step: Tensor
        if config.train.compute_train_metrics:
            self.register_buffer(
                "read_since_log", torch.zeros(COUNTS_SIZE, dtype=torch.float64, device=device)
            )
            self.register_buffer(
                "read_in_step",
                torch.zeros(COUNTS_SIZE, dtype=torch.float64, device=device),
                persistent=False,
            )

    @property
    def causal(self) -> Any:
        """The base's own class, with the adapter in its layers."""
        return self.model.get_base_model()  # type: ignore[operator]

    def parameters_used_directly(
        self, pattern: str | None
    ) -> Iterator[tuple[nn.Module, nn.Parameter]]:
        """Yield the head's weight, used here, and those whose whole names fit the expression.

        Each with the module that uses it, which is the one around its layer.
        """
        yield self, self.causal.lm_head.weight
        for name, parameter in self.named_parameters():
            if pattern and re.fullmatch(pattern, name):
                yield self.get_submodule(name.rsplit(".", 2)[0]), parameter

    def forward(
        self, answers_BT: Tensor, loss: LossSettings, inputs: Mapping[str, Tensor]
    ) -> tuple[Tensor, Tensor, Tensor]:
        """Return losses, likeliest tokens and targets of the answers, [N] each, in order.

        `inputs` are the arguments of the base (`ocr.recognizers.vlm.inputs.model_inputs`).
        """
        ids_BT = inputs["input_ids"]
        # padding on the right is never seen by what comes before it, so no mask is needed
        hidden_BTH = self.causal.model(use_cache=False, **inputs)[0]
        targets_N, hidden_NH = (
            ids_BT[:, 1:][answers_BT[:, 1:]],
            hidden_BTH[:, :-1][answers_BT[:, 1:]],
        )
        losses_N, likeliest_N = token_losses(hidden_NH, self.causal.lm_head.weight, targets_N, loss)
        return losses_N, likeliest_N, targets_N
