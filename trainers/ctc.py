"""The CTC family as a Task: which samples can be learnt, their batches, their losses and how well they are read."""

from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from math import isfinite
from pathlib import Path

import torch
from torch import Tensor

from ocr.alphabet import Alphabet
from ocr.bundle import open_bundle
from ocr.dataset.prepared import told
from ocr.dataset.read import Dataset
from ocr.errors import UserError
from ocr.images import ImageRefused, Pixels, image_size, open_image, scale_to_height
from ocr.recognizers.ctc.decoding import Decoder
from ocr.recognizers.ctc.networks import MicroBatchNorm, TorchBackend, build_network
from ocr.recognizers.ctc.reading import CtcRecognizer, as_line, collate, input_width
from ocr.scoring import Counts, score
from ocr.settings import resolved
from trainers.augment import augment
from trainers.batches import Turn
from trainers.config import TrainConfig
from trainers.losses import ctc_losses, outputs_needed
from trainers.random import key_of

_LINES_IN_MEMORY_BYTES = 512 * 1024 * 1024
_READ_AT_ONCE = 256
_AUGMENTED_HEIGHT = 2  # in heights of the network's lines


@dataclass(frozen=True, slots=True)
class Checked:
    """What a data set holds for this network: usable samples as indices into their split, and why others are left out."""

    alphabet: Alphabet
    train: tuple[int, ...]
    widths: tuple[int, ...]
    validation: tuple[int, ...]
    skipped: dict[str, int]
    unknown_characters: dict[str, int]


@dataclass(frozen=True, slots=True)
class CtcBatch:
    """One micro-batch: ink [B, C, H, W], widths [B] in columns, all targets in a row [S] and their lengths [B]."""

    ink_BCHW: Tensor
    widths_B: Tensor
    targets_S: Tensor
    target_lengths_B: Tensor


def check(config: TrainConfig, train: Dataset, validation: Dataset) -> Checked:
    """Look at every label and image header before training; UserError where too much is wrong (`max_skipped`) or nothing is left."""
    training = range(min(len(train), config.data.max_train_samples or len(train)))
    judged = range(min(len(validation), config.data.max_validation_samples or len(validation)))
    alphabet = _alphabet(config, train, training)
    skipped, examples = Counter[str](), dict[str, str]()

    def usable(data: Dataset, index: int, learn: bool) -> int | None:
        try:
            return _width_to_learn(config, alphabet, data, index, learn)
        except ImageRefused as refused:
            skipped[refused.reason] += 1
            examples.setdefault(refused.reason, str(refused))
            return None

    widths = {index: width for index in training if (width := usable(train, index, True)) is not None}
    readable = tuple(index for index in judged if usable(validation, index, False) is not None)
    _require_enough(config, len(widths), len(readable), len(training) + len(judged), skipped, examples)
    unknown = alphabet.unknown(validation.texts[index] for index in readable)
    return Checked(alphabet, tuple(widths), tuple(widths.values()), readable, dict(skipped.most_common()), dict(unknown.most_common()))


def _alphabet(config: TrainConfig, train: Dataset, training: range) -> Alphabet:
    texts = train.texts[: len(training)]
    if config.model.alphabet is None:
        return Alphabet.from_texts(texts)
    alphabet = Alphabet.from_texts([config.model.alphabet])
    alphabet.require(texts, where=f"{train.location}: labels")
    return alphabet


def _width_to_learn(config: TrainConfig, alphabet: Alphabet, data: Dataset, index: int, learn: bool) -> int:
    """The fewest columns of a sample at the network's input (trimming empty rows gives more); ImageRefused, with a reason to count, where it cannot be used."""
    where = f"{data.location}: sample {data.ids[index]}"
    width, height = image_size(data.image_bytes(index), where=where)
    per_output = config.model.columns_per_output
    columns = input_width(max(1, round(width * config.model.height_px / height)), per_output)
    needed = outputs_needed(alphabet.encode(data.texts[index])) if learn else 0
    if needed > columns // per_output:
        raise ImageRefused(
            where, "label too long for its image", f"{data.texts[index]!r} needs {needed} outputs, {width}×{height} px give {columns // per_output}"
        )
    return columns


def _require_enough(config: TrainConfig, train: int, validation: int, all: int, skipped: Counter[str], examples: dict[str, str]) -> None:
    reasons = "".join(f"\n  {count:,} {reason}, such as {examples[reason]}" for reason, count in skipped.most_common(5))
    if skipped.total() > config.max_skipped * all:
        raise UserError(
            f"{told(config.data.train)}: {skipped.total():,} of {all:,} samples cannot be used, more than max_skipped={config.max_skipped:g}; mend them or raise it{reasons}"
        )
    if train < config.workers:
        raise UserError(f"{told(config.data.train)}: {train} training samples for {config.workers} workers; every worker needs at least one{reasons}")
    if not validation:
        raise UserError(f"{told(config.data.validation or config.data.train)}: no validation sample that can be read{reasons}")


class CtcTask:
    """A network of the CTC family with its data; `checked` comes from `check`."""

    def __init__(self, config: TrainConfig, checked: Checked, train: Dataset, validation: Dataset, device: str = "cpu") -> None:
        self.config, self.checked, self.train, self.validation_data = config, checked, train, validation
        self.device, self.alphabet = torch.device(device), checked.alphabet
        self.widths, self.validation = checked.widths, checked.validation
        self.train_ids = [train.ids[index] for index in checked.train]
        torch.manual_seed(key_of(config.train.seed, "weights"))
        network = build_network(config.model, len(self.alphabet))
        self.network = network.to(self.device).train()
        self.network.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
        self.recognizer = CtcRecognizer(TorchBackend(self.network, device), Decoder(self.alphabet), config.model.height_px, config.run_name)
        self._norms = [module for module in self.network.modules() if isinstance(module, MicroBatchNorm)]
        self._lines = _LineCache(self._decode)

    def batch(self, turn: Turn, epoch: int) -> CtcBatch:
        """Decode, augment by each sample's own key, and collate."""
        seed, height_px = self.config.train.seed, self.config.model.height_px
        lines = [as_line(augment(self._lines[index], self.config.augment, seed, epoch, self.train_ids[index]), height_px) for index in turn.samples]
        ink_BCHW, widths_B = collate(lines, self.network.columns_per_output)
        targets = [self.alphabet.encode(self.train.texts[self.checked.train[index]]) for index in turn.samples]
        flat, lengths_B = torch.tensor([i for ids in targets for i in ids]), torch.tensor([len(ids) for ids in targets])
        ink = torch.from_numpy(ink_BCHW).contiguous(memory_format=torch.channels_last)
        return CtcBatch(ink, torch.from_numpy(widths_B), flat, lengths_B)

    def losses(self, batch: CtcBatch, weight: float) -> Tensor:
        """CTC loss per target class of each sample, [B]."""
        for norm in self._norms:
            norm.sample_weight = weight
        logits_TBK, lengths_B = self.network(batch.ink_BCHW.to(self.device), batch.widths_B.to(self.device))
        return ctc_losses(logits_TBK, lengths_B, batch.targets_S, batch.target_lengths_B, self.config.loss)

    def statistics(self) -> list[Tensor]:
        """What each batch normalisation gathered, [2C + 1] each."""
        return [norm.step_sums for norm in self._norms]

    def absorb(self, statistics: Sequence[Tensor]) -> None:
        """Move the running statistics."""
        for norm, sums in zip(self._norms, statistics, strict=True):
            norm.absorb(sums)

    def evaluate(self, indices: Sequence[int]) -> tuple[Counts, float, int]:
        """Counts of these validation samples, and the sum of the losses per character of those that the network can write."""
        counts, losses = Counts(), list[float]()
        for start in range(0, len(indices), _READ_AT_ONCE):
            part = indices[start : start + _READ_AT_ONCE]
            images = [self._open(self.validation_data, index) for index in part]
            references = [self.validation_data.texts[index] for index in part]
            for reference, (reading, loss) in zip(references, self.recognizer.read_and_compare(images, references), strict=True):
                counts += score(reference, reading.text)
                losses += [loss / len(reference)] if isfinite(loss) else []
        return counts, sum(losses), len(losses)

    def init_from(self, path: Path) -> None:
        """Take the weights of a bundle; UserError where its network or alphabet is another one."""
        bundle = open_bundle(path)
        ours, theirs = resolved(self.config.model), dict(bundle.model)
        differing = [key for key in ours if key not in ("alphabet", "dropout") and ours[key] != theirs.get(key)]
        if bundle.family != "ctc" or differing:
            raise UserError(
                f"{path}: another network than this run's (model.{', model.'.join(differing) or 'kind'} differs); train.init_from needs the same one"
            )
        if tuple(bundle.alphabet) != self.alphabet.characters:
            raise UserError(f"{path}: its alphabet is not this run's; set model.alphabet to the bundle's characters")
        self.network.load_state_dict(bundle.weights())

    @property
    def train_texts(self) -> list[str]:
        """Of each usable training sample."""
        return [self.train.texts[index] for index in self.checked.train]

    def train_image(self, index: int) -> bytes:
        """The encoded image of a usable training sample."""
        return self.train.image_bytes(self.checked.train[index])

    def _decode(self, index: int) -> Pixels:
        """Before augmentation: not higher than the network's lines need, since they are trimmed and scaled after it."""
        line = self._open(self.train, self.checked.train[index])
        return scale_to_height(line, min(line.shape[0], _AUGMENTED_HEIGHT * self.config.model.height_px))

    def _open(self, data: Dataset, index: int) -> Pixels:
        return open_image(data.image_bytes(index), self.recognizer.image_mode, where=f"{data.location}: sample {data.ids[index]}")


class _LineCache:
    """Decoded training lines, kept up to a limit of bytes; what comes later is decoded each time."""

    def __init__(self, decode: Callable[[int], Pixels]) -> None:
        self._decode, self._kept, self._bytes = decode, dict[int, Pixels](), 0

    def __getitem__(self, index: int) -> Pixels:
        line = self._kept.get(index)
        if line is None:
            line = self._decode(index)
            if self._bytes + line.nbytes <= _LINES_IN_MEMORY_BYTES:
                self._kept[index], self._bytes = line, self._bytes + line.nbytes
        return line
