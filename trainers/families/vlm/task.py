"""A vision-language model with a LoRA adapter as a Task: batches, losses and evaluation.

Legend: B samples, T tokens, N answer tokens of a micro-batch, H hidden size, V vocabulary.
"""

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn

from ocr.dataset.read import Dataset
from ocr.evaluation import evaluate
from ocr.images import open_image
from ocr.keyed import generator, key_of
from ocr.recognizers.vlm.adapter import adapted, fill
from ocr.recognizers.vlm.base_model import DTYPES, dtype_for
from ocr.recognizers.vlm.find import find_base
from ocr.recognizers.vlm.inputs import model_inputs, padded
from ocr.recognizers.vlm.reading import VlmRecognizer
from ocr.scoring import Counts, score
from ocr.text import normalise
from trainers.config import TrainConfig
from trainers.families.splits import Subset, Trained
from trainers.families.task import EvaluationSums, Losses, MicroBatch, UsableSamples
from trainers.families.vlm.augment import disturb
from trainers.families.vlm.initial_adapter import initial_adapter
from trainers.families.vlm.model import AdaptedModel
from trainers.families.vlm.samples import Fitting


@dataclass(frozen=True, slots=True)
class VlmBatch:
    """One micro-batch, padded on the right: token ids [B, T] and which of them are answers [B, T].

    Images are uint8, [3, H, W] each, each with the key of its random numbers.
    """

    ids_BT: Tensor
    answers_BT: Tensor
    images: list[Tensor]
    keys: list[tuple[int | str, ...]]


class VlmTask:
    """A vision-language base with a new adapter and its data, `usable` from `usable_samples`."""

    class_layers: Collection[str] = ()

    def __init__(
        self,
        config: TrainConfig,
        usable: UsableSamples,
        train: Trained,
        validation: Dataset,
        device: str = "cpu",
        precision: str = "fp32",
    ) -> None:
        self.config, self.usable, self.validation_data = config, usable, validation
        self.train = Subset(train, usable.train)
        self.train_ids, self.widths, self.replayed = self.train.ids, usable.widths, usable.replayed
        self.validation = usable.validation
        self.device, self.base = torch.device(device), find_base(config.vlm)
        self.dtype = dtype_for(precision) if config.vlm.dtype == "auto" else config.vlm.dtype
        self.fitting = Fitting(config, self.base)
        # ZeRO-3 moves the weights to the GPUs tensor by tensor
        held_on = "cpu" if config.zero_stage == 3 else device
        self.network = AdaptedModel(
            self._adapted(held_on),
            self.base.config["text_config"]["vocab_size"],
            config,
            self.device,
        ).train()
        self.recognizer = VlmRecognizer(
            self.network.model,
            self.base,
            config.vlm,
            config.images,
            config.generation,
            config.run_name,
        )

    @property
    def parameters_used_directly(self) -> Sequence[tuple[nn.Module, nn.Parameter]]:
        """Parameters that are used without a call of their layer, and by which module."""
        return list(self.network.parameters_used_directly(self.base.architecture.used_directly))

    def batch(self, micro_batch: MicroBatch, epoch: int) -> VlmBatch:
        """Decode, scale and collate."""
        samples = [self._sample(self.train, index) for index in micro_batch.samples]
        keys: list[tuple[int | str, ...]] = [
            (self.config.train.seed, epoch, self.train_ids[index]) for index in micro_batch.samples
        ]
        return self._collate(samples, keys)

    def losses(self, batch: VlmBatch, weight: float) -> Losses:
        """Return the sum of each sample's weighted token losses, and the tokens' weights."""
        losses_N, likeliest_N, targets_N, counts = self._forward(batch)
        confusion = self.network.confusion
        weights_N = torch.ones_like(losses_N)
        if confusion is not None:
            weights_N = confusion.weights(targets_N)
        if weight and confusion is not None:
            confusion.note(targets_N, likeliest_N)
        if weight and self.config.train.compute_train_metrics:
            read = self._counts(targets_N, likeliest_N, counts).as_vector()
            self.network.read_in_step += torch.tensor(read, dtype=torch.float64, device=self.device)
        sums, weights = (
            torch.split(values * weights_N, counts)
            for values in (losses_N, torch.ones_like(losses_N))
        )
        return Losses(
            torch.stack([part.sum() for part in sums]),
            torch.stack([part.sum() for part in weights]),
        )

    def statistics(self) -> list[Tensor]:
        """Return confused tokens [2 V] and edit counts of training batches, where counted."""
        sums = [self.network.confusion.step_sums] if self.network.confusion is not None else []
        if self.config.train.compute_train_metrics:
            sums.append(self.network.read_in_step)
        return sums

    def absorb(self, statistics: Sequence[Tensor]) -> None:
        """Update the running sums."""
        left = list(statistics)
        if self.network.confusion is not None:
            self.network.confusion.absorb(left.pop(0))
        if self.config.train.compute_train_metrics:
            self.network.read_since_log += left.pop(0)
            self.network.read_in_step.zero_()

    def train_metrics(self) -> dict[str, float]:
        """Return CER and WER since the last call, by the likeliest token at each position."""
        if not self.config.train.compute_train_metrics:
            return {}
        counted = Counts.from_vector(self.network.read_since_log.tolist())
        self.network.read_since_log.zero_()
        return {"train_cer_teacher_forced": counted.cer, "train_wer_teacher_forced": counted.wer}

    def evaluate(self, indices: Sequence[int]) -> EvaluationSums:
        """Return losses and teacher-forced counts, and counts of generated text.

        Text is generated for `read_indices` alone.
        """
        generated = set(self.read_indices)
        chosen = [index for index in indices if index in generated]
        counts = evaluate(self.recognizer, self.validation_data, chosen).counts
        forced, loss_sum, loss_weight = Counts(), 0.0, 0.0
        for part in self._by_size(indices):
            samples = [self._sample(self.validation_data, index) for index in part]
            batch = self._collate(samples, None)
            with torch.no_grad():
                self.network.eval()
                losses_N, likeliest_N, targets_N, parts = self._forward(batch)
                self.network.train()
            loss_sum += float(losses_N.sum(dtype=torch.float64))
            loss_weight += len(losses_N)
            forced += self._counts(targets_N, likeliest_N, parts)
        return EvaluationSums(counts, loss_sum, loss_weight, forced)

    def example(self) -> dict[str, str]:
        """Return id, reference and present reading of the first validation sample."""
        (line,) = evaluate(self.recognizer, self.validation_data, self.validation[:1]).lines
        return {"id": line.id, "reference": line.reference, "reading": line.reading}

    @cached_property
    def read_indices(self) -> list[int]:
        """Validation samples that text is generated for: always the same, picked by the seed."""
        most = self.config.generation.max_eval_samples or len(self.validation)
        order = generator(self.config.train.seed, "generated").permutation(len(self.validation))
        return [self.validation[index] for index in sorted(order[:most].tolist())]

    def init_from(self, path: str) -> None:
        """Take the weights of an adapter: of a bundle, a run, a checkpoint, or a folder of PEFT's.

        Raises UserError where the adapter belongs to another base or has another shape.
        """
        fill(self.network.model, initial_adapter(Path(path), self.base, self.config.lora), path)

    def _adapted(self, device: str) -> nn.Module:
        """Return the base with a new adapter, initialised by the run's seed."""
        settings = self.config.vlm
        model = self.base.load(settings, DTYPES[self.dtype], device)
        if settings.gradient_checkpointing:
            model.activation_checkpointing_enable({"use_reentrant": False})  # type: ignore[operator]
        torch.manual_seed(key_of(self.config.train.seed, "weights"))
        return adapted(model, self.base, self.config.lora)

    def _sample(self, data: Dataset | Subset, index: int) -> tuple[Tensor | None, list[int]]:
        """Return the image as the model gets it (None for a text without one) and the answer."""
        answer, content = self.fitting.answer(data.texts[index]), data.image_bytes(index)
        if not content:
            return None, answer
        image = open_image(content, "RGB", where=f"{data.location}: sample {data.ids[index]}")
        return self.recognizer.prepared(image, max(1, self.fitting.room(answer))), answer

    def _collate(
        self,
        samples: Sequence[tuple[Tensor | None, list[int]]],
        keys: list[tuple[int | str, ...]] | None,
    ) -> VlmBatch:
        prompt, patching = self.fitting.prompt, self.base.patching
        questions = [
            prompt.ids(patching.tokens(image.shape[2], image.shape[1]) if image is not None else 0)
            for image, _ in samples
        ]
        answers = [answer for _, answer in samples]
        pairs = list(zip(questions, answers, strict=True))
        ids = [[*question, *answer] for question, answer in pairs]
        is_answer = [[0] * len(question) + [1] * len(answer) for question, answer in pairs]
        with_image = [index for index, (image, _) in enumerate(samples) if image is not None]
        return VlmBatch(
            padded(ids, prompt.padding_token, left=False),
            padded(is_answer, 0, left=False).bool(),
            [image for image, _ in samples if image is not None],
            [keys[index] for index in with_image] if keys else [],
        )

    def _forward(self, batch: VlmBatch) -> tuple[Tensor, Tensor, Tensor, list[int]]:
        """Return losses, likeliest tokens and targets of the answers, [N] each, sample by sample.

        The last value is the number of answer tokens of each sample.
        """
        ids_BT = batch.ids_BT.to(self.device)
        images = [
            self._disturbed(image.to(self.device), key)
            for image, key in zip(batch.images, batch.keys or [()] * len(batch.images), strict=True)
        ]
        losses_N, likeliest_N, targets_N = self.network(
            batch.answers_BT.to(self.device),
            self.config.loss,
            model_inputs(ids_BT, images, self.fitting.prompt.image_token, self.base.patching),
        )
        return losses_N, likeliest_N, targets_N, batch.answers_BT.sum(1).tolist()

    def _disturbed(self, image_CHW: Tensor, key: tuple[int | str, ...]) -> Tensor:
        return disturb(image_CHW, self.config.kornia, *key) if key else image_CHW

    def _counts(self, targets_N: Tensor, likeliest_N: Tensor, counts: list[int]) -> Counts:
        """Return edit counts, reading the likeliest token at each position."""
        decode = self.base.tokenizer.batch_decode
        references, readings = (
            decode(
                [part.tolist() for part in torch.split(tokens, counts)], skip_special_tokens=True
            )
            for tokens in (targets_N, likeliest_N)
        )
        pairs = zip(references, readings, strict=True)
        return sum(
            (score(normalise(reference), normalise(reading)) for reference, reading in pairs),
            Counts(),
        )

    def _by_size(self, indices: Sequence[int]) -> list[list[int]]:
        """Return micro-batches of validation samples with texts of similar length."""
        sizes = [len(self.validation_data.texts[index]) for index in indices]
        order = [indices[position] for position in np.argsort(sizes, kind="stable")]
        step = self.config.train.micro_batch_size
        return [order[start : start + step] for start in range(0, len(order), step)]
