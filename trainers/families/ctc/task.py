"""The CTC family as a Task: which samples can be learnt, their batches, their losses and how well they are read."""

from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, fields
from math import isfinite
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from ocr.alphabet import Alphabet
from ocr.bundle import Bundle, open_bundle
from ocr.dataset.joined import Joined
from ocr.dataset.read import Dataset
from ocr.dictionary import Dictionary
from ocr.errors import UserError
from ocr.images import ImageRefused, Pixels, image_size, open_image, scale_to_height
from ocr.recognizers.ctc.decoding import Decoder
from ocr.recognizers.ctc.networks import MicroBatchNorm, TorchBackend, build_network
from ocr.recognizers.ctc.reading import CtcRecognizer, as_line, collate, input_width
from ocr.scoring import Counts, score
from ocr.settings import resolved
from trainers.config import TrainConfig
from trainers.families.ctc.augment import augment
from trainers.families.ctc.losses import ctc_losses, outputs_needed
from trainers.families.ctc.redrawn_images import FreshImages
from trainers.families.task import Checked, Judged, Losses, Trained
from trainers.families.usable_samples import check_samples, training_indices
from trainers.loop.batches import Turn
from trainers.loop.keyed_random import key_of

_LINES_IN_MEMORY_BYTES = 512 * 1024 * 1024
_READ_AT_ONCE = 256
_NOT_THE_NETWORK = (
    "alphabet",
    "character_dict_path",
    "use_space_char",
    "dropout",
)  # of model's settings
_AUGMENTED_HEIGHT = 2  # in heights of the network's lines


@dataclass(frozen=True, slots=True, kw_only=True)
class CtcChecked(Checked):
    """And what the network can write."""

    alphabet: Alphabet


@dataclass(frozen=True, slots=True)
class CtcBatch:
    """One micro-batch: ink [B, C, H, W], widths [B] in columns, all targets in a row [S] and their lengths [B]."""

    ink_BCHW: Tensor
    widths_B: Tensor
    targets_S: Tensor
    target_lengths_B: Tensor


def check(config: TrainConfig, train: Trained, validation: Dataset) -> CtcChecked:
    """Look at every label and image header before training; UserError where too much is wrong (`max_skipped`) or nothing is left."""
    training, replayed = training_indices(config, train)
    alphabet = _alphabet(config, train, [*training, *replayed])
    checked = check_samples(
        config,
        train,
        validation,
        lambda data, index, trains: _width_to_learn(config, alphabet, data, index, trains),
    )
    unknown = alphabet.unknown(validation.texts[index] for index in checked.validation)
    known = {each.name: getattr(checked, each.name) for each in fields(checked)}
    return CtcChecked(
        **{**known, "unknown_characters": dict(unknown.most_common())}, alphabet=alphabet
    )


def _alphabet(config: TrainConfig, train: Trained, training: Sequence[int]) -> Alphabet:
    """As `model.alphabet` or the dictionary says, else the training texts' characters, with those that `init_from` brings."""
    texts = [train.texts[index] for index in training]
    given = config.ctc.alphabet
    if given is None and config.ctc.character_dict_path:
        given = "".join(_spelling(config, texts).entries)
    if given is None and config.train.init_from and config.train.init_alphabet != "new":
        given = "".join(initial_bundle(config.train.init_from).alphabet) + (
            "".join(texts) if config.train.init_alphabet == "union" else ""
        )
    if given is None:
        return Alphabet.from_texts(texts)
    alphabet = Alphabet.from_texts([given])
    alphabet.require(texts, where=f"{train.location}: labels")
    return alphabet


def _spelling(config: TrainConfig, texts: Sequence[str]) -> Dictionary:
    """The dictionary; UserError naming characters of the training labels that no entry spells."""
    path = Path(str(config.ctc.character_dict_path))
    dictionary = Dictionary.open(path, config.ctc.use_space_char)
    missing = Counter(
        name for text in texts for name in dictionary.missing(text).split(", ") if name
    )
    if missing:
        listed = ", ".join(f"{name} ({count}×)" for name, count in missing.most_common(10))
        raise UserError(
            f"{path}: no entry spells {listed} of the training labels; add them, or leave the labels out with the source's character_dict_path"
        )
    return dictionary


def initial_bundle(path: str) -> Bundle:
    """The bundle that `train.init_from` names: its folder, its run's, or one that ships; UserError where there is none, or one of another family."""
    folder = Path(path)
    bundle = open_bundle(folder / "bundle" if (folder / "bundle").is_dir() else folder)
    if bundle.family != "ctc":
        raise UserError(
            f"{path}: a bundle of the family {bundle.family!r}; train.init_from needs one of the network's own"
        )
    return bundle


def _width_to_learn(
    config: TrainConfig, alphabet: Alphabet, data: Trained, index: int, learn: bool
) -> int:
    """The fewest columns of a sample at the network's input (trimming empty rows gives more); ImageRefused, with a reason to count, where it cannot be used."""
    where = f"{data.location}: sample {data.ids[index]}"
    width, height = image_size(data.image_bytes(index), where=where)
    columns = input_width(max(1, round(width * config.ctc.height_px / height)), config.ctc)
    needed, given = (
        outputs_needed(alphabet.encode(data.texts[index])) if learn else 0,
        config.ctc.outputs(columns),
    )
    if needed > given:
        giver = (
            f"{width}×{height} px give"
            if config.ctc.fixed_width_px is None
            else "model.out_char_num gives"
        )
        more = (
            "; model.kind=compact gives twice as many" if config.ctc.columns_per_output > 4 else ""
        )
        raise ImageRefused(
            where,
            "label too long for its image",
            f"{data.texts[index]!r} needs {needed} outputs, {giver} {given}{more}",
        )
    return columns


class CtcTask:
    """A network of the CTC family with its data; `checked` comes from `check`."""

    def __init__(
        self,
        config: TrainConfig,
        checked: CtcChecked,
        train: Trained,
        validation: Dataset,
        device: str = "cpu",
    ) -> None:
        self.config, self.checked, self.train, self.validation_data = (
            config,
            checked,
            train,
            validation,
        )
        self.device, self.alphabet = torch.device(device), checked.alphabet
        self.widths, self.validation, self.replayed = (
            checked.widths,
            checked.validation,
            checked.replayed,
        )
        self.judged = self.validation
        self.train_ids = [train.ids[index] for index in checked.train]
        torch.manual_seed(key_of(config.train.seed, "weights"))
        network = build_network(config.ctc, len(self.alphabet))
        self.network = network.to(self.device).train()
        self.network.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
        self.recognizer = CtcRecognizer(
            TorchBackend(self.network, device), Decoder(self.alphabet), config.ctc, config.run_name
        )
        self._norms = [
            module for module in self.network.modules() if isinstance(module, MicroBatchNorm)
        ]
        self._lines = _LineCache(self._decode)
        self._fresh = FreshImages(train.first if isinstance(train, Joined) else train)

    def batch(self, turn: Turn, epoch: int) -> CtcBatch:
        """Decode, augment by each sample's own key, and collate."""
        fresh = self._fresh.of([self.checked.train[index] for index in turn.samples], epoch)
        targets = [
            self.alphabet.encode(self.train.texts[self.checked.train[index]])
            for index in turn.samples
        ]
        lines = [
            self._line(index, epoch, fresh.get(self.checked.train[index]), outputs_needed(ids))
            for index, ids in zip(turn.samples, targets, strict=True)
        ]
        ink_BCHW, widths_B = collate(lines, self.config.ctc)
        flat, lengths_B = (
            torch.tensor([i for ids in targets for i in ids]),
            torch.tensor([len(ids) for ids in targets]),
        )
        ink = torch.from_numpy(ink_BCHW).contiguous(memory_format=torch.channels_last)
        return CtcBatch(ink, torch.from_numpy(widths_B), flat, lengths_B)

    def losses(self, batch: CtcBatch, weight: float) -> Losses:
        """CTC loss per target class of each sample."""
        for norm in self._norms:
            norm.sample_weight = weight
        logits_TBK, lengths_B = self.network(
            batch.ink_BCHW.to(self.device), batch.widths_B.to(self.device)
        )
        losses_B = ctc_losses(
            logits_TBK, lengths_B, batch.targets_S, batch.target_lengths_B, self.config.loss
        )
        return Losses(losses_B, torch.ones_like(losses_B))

    def statistics(self) -> list[Tensor]:
        """What each batch normalisation gathered, [2C + 1] each."""
        return [norm.step_sums for norm in self._norms]

    def absorb(self, statistics: Sequence[Tensor]) -> None:
        """Move the running statistics."""
        for norm, sums in zip(self._norms, statistics, strict=True):
            norm.absorb(sums)

    def train_metrics(self) -> dict[str, float]:
        """None."""
        return {}

    def example(self) -> dict[str, str]:
        """None: the report shows lines enough."""
        return {}

    def evaluate(self, indices: Sequence[int]) -> Judged:
        """Counts of these validation samples, and the losses per character of those that the network can write."""
        counts, losses = Counts(), list[float]()
        for start in range(0, len(indices), _READ_AT_ONCE):
            part = indices[start : start + _READ_AT_ONCE]
            images = [self._open(self.validation_data, index) for index in part]
            references = [self.validation_data.texts[index] for index in part]
            for reference, (reading, loss) in zip(
                references, self.recognizer.read_and_compare(images, references), strict=True
            ):
                counts += score(reference, reading.text)
                losses += [loss / len(reference)] if isfinite(loss) else []
        return Judged(counts, sum(losses), len(losses))

    def init_from(self, path: str) -> None:
        """Take the weights of a bundle, of the classes those of the characters that both have; UserError where its network is another one."""
        bundle = initial_bundle(path)
        ours, theirs = resolved(self.config.ctc), dict(bundle.model)
        differing = [
            key
            for key in {**theirs, **ours}
            if key not in _NOT_THE_NETWORK and ours.get(key) != theirs.get(key)
        ]
        if differing:
            theirs_told = " ".join(
                f"model.{key}={theirs[key]}" for key in theirs if key not in _NOT_THE_NETWORK
            )
            raise UserError(
                f"{path}: another network than this run's (model.{', model.'.join(differing)} differs); set {theirs_told}"
            )
        known = {character: place for place, character in enumerate(bundle.alphabet, start=1)}
        rows = [
            (0, 0),
            *(
                (place, known[character])
                for place, character in enumerate(self.alphabet.characters, start=1)
                if character in known
            ),
        ]
        own_rows, their_rows = (list(side) for side in zip(*rows, strict=True))
        state = self.network.state_dict()
        for name, tensor in bundle.weights().items():
            if name.partition(".")[0] in self.network.class_layers:
                state[name][own_rows] = tensor[their_rows].to(state[name])
            else:
                state[name].copy_(tensor)

    @property
    def train_texts(self) -> list[str]:
        """Of each usable training sample that is not only replayed."""
        return [
            self.train.texts[index]
            for index in self.checked.train[: len(self.checked.train) - self.replayed]
        ]

    def train_image(self, index: int) -> bytes:
        """The encoded image of a usable training sample."""
        return self.train.image_bytes(self.checked.train[index])

    def _line(self, index: int, epoch: int, fresh: Pixels | None, needed: int) -> Pixels:
        """A training sample as the network gets it; one drawn too narrow for its label gives way to the data set's image."""
        seed, network, id = self.config.train.seed, self.config.ctc, self.train_ids[index]
        if fresh is not None:
            fresh = (
                fresh
                if self.recognizer.image_mode == "L"
                else np.repeat(fresh[:, :, None], 3, axis=2)
            )
            line = as_line(augment(fresh, self.config.augment, seed, epoch, id), network)
            if network.outputs(input_width(line.shape[1], network)) >= needed:
                return line
        return as_line(augment(self._lines[index], self.config.augment, seed, epoch, id), network)

    def _decode(self, index: int) -> Pixels:
        """Before augmentation: not higher than the network's lines need, since they are trimmed and scaled after it."""
        line = self._open(self.train, self.checked.train[index])
        return scale_to_height(
            line, min(line.shape[0], _AUGMENTED_HEIGHT * self.config.ctc.height_px)
        )

    def _open(self, data: Trained, index: int) -> Pixels:
        return open_image(
            data.image_bytes(index),
            self.recognizer.image_mode,
            where=f"{data.location}: sample {data.ids[index]}",
        )


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
