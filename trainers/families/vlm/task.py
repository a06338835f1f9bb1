"""A vision-language model with a LoRA adapter as a Task: what fits, its batches, its losses and how well it reads.

Legend: B samples, T tokens, N answer tokens of a micro-batch, H hidden size, V vocabulary.
"""

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors.torch import save
from torch import Tensor, nn

from ocr.bundle import DESCRIPTION, MANIFEST, open_bundle
from ocr.dataset.read import Dataset
from ocr.errors import UserError
from ocr.evaluation import evaluate
from ocr.images import ImageRefused, image_size, open_image
from ocr.recognizers.vlm.adapter import adapted, fill, read_adapter, require_base
from ocr.recognizers.vlm.base_model import DTYPES, Base, dtype_for
from ocr.recognizers.vlm.find import find_base
from ocr.recognizers.vlm.inputs import Prompt, fitted_size, padded, vision_inputs
from ocr.recognizers.vlm.reading import VlmRecognizer
from ocr.scoring import COUNTS_SIZE, Counts, score
from ocr.text import normalise
from trainers.config import LossSettings, TrainConfig
from trainers.families.task import UsableSamples, EvaluationSums, Losses, Trained
from trainers.families.usable_samples import check_samples
from trainers.families.vlm.augment import disturb
from trainers.families.vlm.losses import Confusion, token_losses
from trainers.loop import checkpoint as checkpoints
from trainers.loop.batches import Turn
from trainers.loop.keyed_random import generator, key_of

LEAST_SIDE_PX = 256  # of what was larger: a page shrunk below it can hardly be read
_ADAPTER = "default"


def check(config: TrainConfig, train: Trained, validation: Dataset) -> UsableSamples:
    """Count every sample's tokens from its label and its image's header; UserError where too much is wrong (`max_skipped`) or nothing is left."""
    fits = Fitting(config, find_base(config.vlm))

    def size_of(data: Trained, index: int, trains: bool) -> int:
        if config.zero_stage == 3 and not data.image_bytes(index):
            raise ImageRefused(
                f"{data.location}: sample {data.ids[index]}",
                "no image under ZeRO-3",
                "its workers go through every layer together",
            )
        if not trains and not data.image_bytes(index):
            raise ImageRefused(
                f"{data.location}: sample {data.ids[index]}",
                "no image to read",
                "a text by itself can be learnt from, not judged by",
            )
        return fits.tokens(data, index)

    return check_samples(config, train, validation, size_of)


def origins(config: TrainConfig) -> dict[str, str]:
    """SHA-256 of the base, and of the adapter that `train.init_from` names."""
    base = find_base(config.vlm)
    if not config.train.init_from:
        return {"base": base.sha256}
    weights = initial_adapter(Path(config.train.init_from), base)
    return {"base": base.sha256, "init_from": hashlib.sha256(save(weights)).hexdigest()}


@dataclass(frozen=True)
class Fitting:
    """What a sample needs of `model.max_length`."""

    config: TrainConfig
    base: Base

    @cached_property
    def prompt(self) -> Prompt:
        """What the model is asked."""
        return self.base.prompt(self.config.vlm)

    def answer(self, text: str) -> list[int]:
        """Token ids of a transcription, with the end."""
        return [*self.base.tokenizer.encode(text, add_special_tokens=False), self.prompt.end_token]

    def room(self, answer: Sequence[int]) -> int:
        """Image tokens that fit beside this answer."""
        return self.config.vlm.max_length - (self.prompt.length(1) - 1) - len(answer)

    def tokens(self, data: Trained, index: int) -> int:
        """Tokens of a sample, its image as small as it must be; ImageRefused, with a reason to count, where it would be illegible."""
        where, answer = f"{data.location}: sample {data.ids[index]}", self.answer(data.texts[index])
        content = data.image_bytes(index)
        if not content:
            return self.prompt.length(0) + len(answer)
        width, height = image_size(content, where=where)
        room, patching = self.room(answer), self.base.patching
        wide, high = fitted_size(
            width, height, self.config.images, patching, max(1, room) * patching.token_pixels
        )
        tokens = patching.tokens(wide, high)
        if tokens > room or max(wide, high) < min(
            LEAST_SIDE_PX, max(fitted_size(width, height, self.config.images, patching))
        ):
            told = f"{len(answer):,} answer tokens leave {max(0, room):,} of model.max_length={self.config.vlm.max_length} for an image of {width}×{height} px"
            raise ImageRefused(where, "too many tokens", told)
        return self.prompt.length(tokens) + len(answer)


@dataclass(frozen=True, slots=True)
class VlmBatch:
    """One micro-batch, right-padded: token ids [B, T], which of them are answers [B, T], images as uint8 [3, H, W] each, and each image's key of draws."""

    ids_BT: Tensor
    answers_BT: Tensor
    images: list[Tensor]
    keys: list[tuple[int | str, ...]]


class AdaptedModel(nn.Module):
    """The base with its adapter, and what is counted of training batches: all that training changes."""

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

    @property
    def parameters_used_directly(self) -> tuple[nn.Parameter, ...]:
        """Those whose layer is passed by: an engine that divides weights must be told."""
        return (self.causal.lm_head.weight,)

    def forward(
        self, ids_BT: Tensor, answers_BT: Tensor, loss: LossSettings, **vision: Tensor
    ) -> tuple[Tensor, Tensor, Tensor]:
        """Losses, likeliest tokens and targets of the answers, [N] each, sample after sample."""
        # padding on the right is never seen by what comes before it, so no mask is needed
        hidden_BTH = self.causal.model(input_ids=ids_BT, use_cache=False, **vision)[0]
        targets_N, hidden_NH = (
            ids_BT[:, 1:][answers_BT[:, 1:]],
            hidden_BTH[:, :-1][answers_BT[:, 1:]],
        )
        losses_N, likeliest_N = token_losses(hidden_NH, self.causal.lm_head.weight, targets_N, loss)
        return losses_N, likeliest_N, targets_N


class VlmTask:
    """A vision-language base with a fresh adapter and its data; `checked` comes from `check`."""

    def __init__(
        self,
        config: TrainConfig,
        checked: UsableSamples,
        train: Trained,
        validation: Dataset,
        device: str = "cpu",
        precision: str = "fp32",
    ) -> None:
        self.config, self.checked, self.train, self.validation_data = (
            config,
            checked,
            train,
            validation,
        )
        self.device, self.base = torch.device(device), find_base(config.vlm)
        self.dtype = dtype_for(precision) if config.vlm.dtype == "auto" else config.vlm.dtype
        self.widths, self.validation, self.replayed = (
            checked.widths,
            checked.validation,
            checked.replayed,
        )
        self.train_ids = [train.ids[index] for index in checked.train]
        self.fitting = Fitting(config, self.base)
        place = (
            "cpu" if config.zero_stage == 3 else device
        )  # what is divided goes to the GPUs tensor by tensor
        self.network = AdaptedModel(
            self._adapted(place), self.base.config["text_config"]["vocab_size"], config, self.device
        ).train()
        self.recognizer = VlmRecognizer(
            self.network.model,
            self.base,
            config.vlm,
            config.images,
            config.generation,
            config.run_name,
        )

    def batch(self, turn: Turn, epoch: int) -> VlmBatch:
        """Decode, scale and collate."""
        samples = [self._sample(self.train, self.checked.train[index]) for index in turn.samples]
        keys: list[tuple[int | str, ...]] = [
            (self.config.train.seed, epoch, self.train_ids[index]) for index in turn.samples
        ]
        return self._collate(samples, keys)

    def losses(self, batch: VlmBatch, weight: float) -> Losses:
        """Of each sample its answer tokens' weighted losses."""
        losses_N, likeliest_N, targets_N, counts = self._forward(batch)
        confusion = self.network.confusion
        weights_N = (
            confusion.weights(targets_N) if confusion is not None else torch.ones_like(losses_N)
        )
        if weight and confusion is not None:
            confusion.note(targets_N, likeliest_N)
        if weight and self.config.train.compute_train_metrics:
            read = sum(
                (score(*pair) for pair in self._texts(targets_N, likeliest_N, counts)), Counts()
            )
            self.network.read_in_step += torch.tensor(
                read.as_vector(), dtype=torch.float64, device=self.device
            )
        sums, weights = (
            torch.split(values * weights_N, counts)
            for values in (losses_N, torch.ones_like(losses_N))
        )
        return Losses(
            torch.stack([part.sum() for part in sums]),
            torch.stack([part.sum() for part in weights]),
        )

    def statistics(self) -> list[Tensor]:
        """Confused tokens [2 V] and edit counts of training batches, where they are counted."""
        confusion = [self.network.confusion.step_sums] if self.network.confusion is not None else []
        return [
            *confusion,
            *([self.network.read_in_step] if self.config.train.compute_train_metrics else []),
        ]

    def absorb(self, statistics: Sequence[Tensor]) -> None:
        """Move the running sums."""
        left = list(statistics)
        if self.network.confusion is not None:
            self.network.confusion.absorb(left.pop(0))
        if self.config.train.compute_train_metrics:
            self.network.read_since_log += left.pop(0)
            self.network.read_in_step.zero_()

    def train_metrics(self) -> dict[str, float]:
        """CER and WER since the last call, by the likeliest token at each place."""
        if not self.config.train.compute_train_metrics:
            return {}
        counted = Counts.from_vector(self.network.read_since_log.tolist())
        self.network.read_since_log.zero_()
        return {"train_cer_teacher_forced": counted.cer, "train_wer_teacher_forced": counted.wer}

    def evaluate(self, indices: Sequence[int]) -> EvaluationSums:
        """Losses and teacher-forced counts of all these samples, and counts of generated text for those of the fixed subset."""
        judged = set(self.judged)
        counts = evaluate(
            self.recognizer, self.validation_data, [index for index in indices if index in judged]
        ).counts
        forced, loss_sum, loss_weight = Counts(), 0.0, 0.0
        for part in self._by_size(indices):
            batch = self._collate(
                [self._sample(self.validation_data, index) for index in part], None
            )
            with torch.no_grad():
                self.network.eval()
                losses_N, likeliest_N, targets_N, parts = self._forward(batch)
                self.network.train()
            loss_sum, loss_weight = (
                loss_sum + float(losses_N.sum(dtype=torch.float64)),
                loss_weight + len(losses_N),
            )
            forced += sum(
                (score(*pair) for pair in self._texts(targets_N, likeliest_N, parts)), Counts()
            )
        return EvaluationSums(counts, loss_sum, loss_weight, forced)

    def example(self) -> dict[str, str]:
        """The first validation sample as it is read now."""
        (line,) = evaluate(self.recognizer, self.validation_data, self.validation[:1]).lines
        return {"id": line.id, "reference": line.reference, "reading": line.reading}

    @cached_property
    def judged(self) -> list[int]:
        """Validation samples that text is generated for: always the same ones, spread over the split by the run's seed."""
        most = self.config.generation.max_eval_samples or len(self.validation)
        order = generator(self.config.train.seed, "generated").permutation(len(self.validation))[
            :most
        ]
        return [self.validation[place] for place in sorted(order.tolist())]

    def init_from(self, path: str) -> None:
        """Take the weights of an adapter: a bundle's, a run's, a checkpoint's, or a folder as PEFT saves it; UserError where it is another base's or another shape."""
        fill(self.network.model, initial_adapter(Path(path), self.base), path)

    def _adapted(self, device: str) -> nn.Module:
        """The base with a fresh adapter, drawn by the run's seed."""
        settings = self.config.vlm
        model = self.base.load(settings, DTYPES[self.dtype], device)
        if settings.gradient_checkpointing:
            model.activation_checkpointing_enable({"use_reentrant": False})  # type: ignore[operator]
        torch.manual_seed(key_of(self.config.train.seed, "weights"))
        return adapted(model, self.base, self.config.lora)

    def _sample(self, data: Trained, index: int) -> tuple[Tensor | None, list[int]]:
        """The image as the model gets it, None for a text without one, and the answer."""
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
        asked = [
            prompt.ids(patching.tokens(image.shape[2], image.shape[1]) if image is not None else 0)
            for image, _ in samples
        ]
        answers = [answer for _, answer in samples]
        ids_BT = padded(
            [[*question, *answer] for question, answer in zip(asked, answers, strict=True)],
            prompt.padding_token,
            left=False,
        )
        answers_BT = padded(
            [
                [0] * len(question) + [1] * len(answer)
                for question, answer in zip(asked, answers, strict=True)
            ],
            0,
            left=False,
        ).bool()
        images = [image for image, _ in samples if image is not None]
        shown = (
            [key for key, (image, _) in zip(keys, samples, strict=True) if image is not None]
            if keys
            else []
        )
        return VlmBatch(ids_BT, answers_BT, images, shown)

    def _forward(self, batch: VlmBatch) -> tuple[Tensor, Tensor, Tensor, list[int]]:
        """Losses, likeliest tokens and targets of the answers, [N] each, sample after sample, and how many each sample has."""
        ids_BT = batch.ids_BT.to(self.device)
        images = [
            self._disturbed(image.to(self.device), key)
            for image, key in zip(batch.images, batch.keys or [()] * len(batch.images), strict=True)
        ]
        vision = {
            "mm_token_type_ids": (ids_BT == self.fitting.prompt.image_token).int(),
            **vision_inputs(images, self.base.patching),
        }
        losses_N, likeliest_N, targets_N = self.network(
            ids_BT, batch.answers_BT.to(self.device), self.config.loss, **vision
        )
        return losses_N, likeliest_N, targets_N, batch.answers_BT.sum(1).tolist()

    def _disturbed(self, image_CHW: Tensor, key: tuple[int | str, ...]) -> Tensor:
        return disturb(image_CHW, self.config.kornia, *key) if key else image_CHW

    def _texts(
        self, targets_N: Tensor, likeliest_N: Tensor, counts: list[int]
    ) -> list[tuple[str, str]]:
        """(reference, reading) of each sample, the likeliest token at each place."""
        decode = self.base.tokenizer.batch_decode
        pairs = [
            decode(
                [part.tolist() for part in torch.split(tokens, counts)], skip_special_tokens=True
            )
            for tokens in (targets_N, likeliest_N)
        ]
        return [
            (normalise(reference), normalise(reading))
            for reference, reading in zip(*pairs, strict=True)
        ]

    def _by_size(self, indices: Sequence[int]) -> list[list[int]]:
        sizes = [len(self.validation_data.texts[index]) for index in indices]
        order = [indices[place] for place in np.argsort(sizes, kind="stable")]
        step = self.config.train.micro_batch_size
        return [order[start : start + step] for start in range(0, len(order), step)]


def initial_adapter(path: Path, base: Base) -> dict[str, Tensor]:
    """The adapter that `train.init_from` names, under PEFT's own names; UserError where there is none, or one of another base."""
    for folder in (path / "bundle", path):
        if (folder / MANIFEST).is_file() and (folder / DESCRIPTION).is_file():
            bundle = open_bundle(folder)
            if bundle.family != "vlm":
                raise UserError(
                    f"{path}: a bundle of the family {bundle.family!r}; train.init_from needs one with an adapter"
                )
            require_base(base, bundle.model.get("base_sha256"), str(folder))
            return read_adapter(folder)
    if (path / checkpoints.MANIFEST).is_file():
        weights = checkpoints.verify_hashes(path).weights()
        return {
            name.removeprefix("model.").replace(f".{_ADAPTER}.", "."): tensor
            for name, tensor in weights.items()
            if name.startswith("model.")
        }
    return read_adapter(path)
