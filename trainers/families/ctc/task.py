"""The CTC family as a Task: which samples can be learnt, their batches, losses and evaluation."""

from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, fields
from math import isfinite
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn

from ocr.alphabet import Alphabet
from ocr.bundle import Bundle, open_bundle
from ocr.dataset.joined import Joined
from ocr.dataset.read import Dataset
from ocr.dictionary import Dictionary
from ocr.errors import UserError
from ocr.images import ImageRefused, Pixels, image_size, open_image, scale_to_height
from ocr.keyed import key_of
from ocr.recognizers.ctc.decoding import Decoder
from ocr.recognizers.ctc.inputs import as_line, collate, input_width
from ocr.recognizers.ctc.layers import MicroBatchNorm
from ocr.recognizers.ctc.networks import TorchBackend, build_network
from ocr.recognizers.ctc.reading import CtcRecognizer
from ocr.scoring import Counts, score
from ocr.settings import resolved
from trainers.config import TrainConfig
from trainers.families.ctc.augment import augment
from trainers.families.ctc.losses import ctc_losses, outputs_needed
from trainers.families.ctc.redrawn_images import RedrawnImages
from trainers.families.splits import Subset, Trained
from trainers.families.task import EvaluationSums, Losses, MicroBatch, UsableSamples
from trainers.families.usable_samples import find_usable, training_indices

_LINES_IN_MEMORY_BYTES = 512 * 1024 * 1024
_READ_AT_ONCE = 256
# settings of model that do not change the network's layers
_NOT_THE_NETWORK = ("alphabet", "character_dict_path", "use_space_char", "dropout")
_AUGMENTED_HEIGHT = 2  # in heights of the network's lines


@dataclass(frozen=True, slots=True, kw_only=True)
class CtcUsableSamples(UsableSamples):
    """The samples that a CTC network can use, and the characters that the network can write."""

    alphabet: Alphabet

    @property
    def vocabulary_size(self) -> int | None:
        """The number of characters in the alphabet."""
        return len(self.alphabet)


@dataclass(frozen=True, slots=True)
class CtcBatch:
    """One micro-batch: ink [B, C, H, W], widths [B] in columns, targets and their lengths [B].

    The targets of all samples stand in a row, [S].
    """

    ink_BCHW: Tensor
    widths_B: Tensor
    targets_S: Tensor
    target_lengths_B: Tensor


def usable_samples(config: TrainConfig, train: Trained, validation: Dataset) -> CtcUsableSamples:
    """Check every label and image header before training.

    Raises UserError where too many cannot be used (`max_skipped`), or none is left.
    """
    training, replay = training_indices(config, train)
    alphabet = _alphabet(config, train, [*training, *replay])
    usable = find_usable(
        config,
        train,
        validation,
        lambda data, index, trains: _width_to_learn(config, alphabet, data, index, trains),
    )
    unknown = alphabet.unknown(validation.texts[index] for index in usable.validation)
    known = {each.name: getattr(usable, each.name) for each in fields(usable)}
    return CtcUsableSamples(
        **{**known, "unknown_characters": dict(unknown.most_common())}, alphabet=alphabet
    )


def _alphabet(config: TrainConfig, train: Trained, training: Sequence[int]) -> Alphabet:
    """Return the alphabet of `model.alphabet`, of the dictionary, or else of the training texts.

    With `train.init_from` the alphabet of that bundle is kept, as `train.init_alphabet` says.
    """
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
    """Return the dictionary; UserError naming characters of training labels that no entry spells."""
    path = Path(str(config.ctc.character_dict_path))
    dictionary = Dictionary.open(path, config.ctc.use_space_char)
    missing = Counter(
        name for text in texts for name in dictionary.missing(text).split(", ") if name
    )
    if missing:
        listed = ", ".join(f"{name} ({count}×)" for name, count in missing.most_common(10))
        raise UserError(
            f"{path}: no entry spells {listed} of the training labels; add them, "
            "or leave the labels out with the source's character_dict_path"
        )
    return dictionary


def initial_bundle(path: str) -> Bundle:
    """Return the bundle that `train.init_from` names: its folder, its run's, or one that ships.

    Raises UserError where there is none, or one of another family.
    """
    folder = Path(path)
    bundle = open_bundle(folder / "bundle" if (folder / "bundle").is_dir() else folder)
    if bundle.family != "ctc":
        raise UserError(
            f"{path}: a bundle of the family {bundle.family!r}; "
            "train.init_from needs one of the network's own"
        )
    return bundle


def _width_to_learn(
    config: TrainConfig, alphabet: Alphabet, data: Trained, index: int, learn: bool
) -> int:
    """Return the fewest columns that a sample has at the network's input.

    Trimming empty rows gives more. Raises ImageRefused where the sample cannot be used.
    """
    where = f"{data.location}: sample {data.ids[index]}"
    width, height = image_size(data.image_bytes(index), where=where)
    columns = input_width(max(1, round(width * config.ctc.height_px / height)), config.ctc)
    needed = outputs_needed(alphabet.encode(data.texts[index])) if learn else 0
    given = config.ctc.outputs(columns)
    if needed > given:
        is_fixed = config.ctc.fixed_width_px is not None
        giver = "model.out_char_num gives" if is_fixed else f"{width}×{height} px give"
        dense = config.ctc.columns_per_output <= 4
        more = "" if dense else "; model.kind=compact gives twice as many"
        reason = f"{data.texts[index]!r} needs {needed} outputs, {giver} {given}{more}"
        raise ImageRefused(where, "label too long for its image", reason)
    return columns


class CtcTask:
    """A network of the CTC family with its data; `usable` comes from `usable_samples`."""

    parameters_used_directly: Sequence[nn.Parameter] = ()

    def __init__(
        self,
        config: TrainConfig,
        usable: CtcUsableSamples,
        train: Trained,
        validation: Dataset,
        device: str = "cpu",
    ) -> None:
        self.config, self.usable, self.validation_data = config, usable, validation
        self.train = Subset(train, usable.train)
        self.train_ids, self.widths, self.replayed = self.train.ids, usable.widths, usable.replayed
        self.validation = self.read_indices = usable.validation
        self.device, self.alphabet = torch.device(device), usable.alphabet
        torch.manual_seed(key_of(config.train.seed, "weights"))
        network = build_network(config.ctc, len(self.alphabet))
        self.network = network.to(self.device).train()
        self.network.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
        self.class_layers = self.network.class_layers
        self.recognizer = CtcRecognizer(
            TorchBackend(self.network, device), Decoder(self.alphabet), config.ctc, config.run_name
        )
        self._norms = [
            module for module in self.network.modules() if isinstance(module, MicroBatchNorm)
        ]
        self._lines = _LineCache(self._decode)
        own = train.first if isinstance(train, Joined) else train
        self._redrawn = RedrawnImages(own, self.train)

    def batch(self, micro_batch: MicroBatch, epoch: int) -> CtcBatch:
        """Decode, augment by each sample's own key, and collate."""
        samples = micro_batch.samples
        redrawn = self._redrawn.of(samples, epoch)
        targets = [self.alphabet.encode(self.train.texts[index]) for index in samples]
        lines = [
            self._line(index, epoch, redrawn.get(index), outputs_needed(ids))
            for index, ids in zip(samples, targets, strict=True)
        ]
        ink_BCHW, widths_B = collate(lines, self.config.ctc)
        return CtcBatch(
            torch.from_numpy(ink_BCHW).contiguous(memory_format=torch.channels_last),
            torch.from_numpy(widths_B),
            torch.tensor([i for ids in targets for i in ids]),
            torch.tensor([len(ids) for ids in targets]),
        )

    def losses(self, batch: CtcBatch, weight: float) -> Losses:
        """Return the CTC loss per target class of each sample."""
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
        """Return the sums of each batch normalisation in this step, [2C + 1] each."""
        return [norm.step_sums for norm in self._norms]

    def absorb(self, statistics: Sequence[Tensor]) -> None:
        """Update the running statistics of each batch normalisation."""
        for norm, sums in zip(self._norms, statistics, strict=True):
            norm.absorb(sums)

    def train_metrics(self) -> dict[str, float]:
        """Return no metrics: error rates of training batches are not computed for CTC."""
        return {}

    def example(self) -> dict[str, str]:
        """Return no example: the report shows enough lines."""
        return {}

    def evaluate(self, indices: Sequence[int]) -> EvaluationSums:
        """Return edit counts of these validation samples, and losses per character.

        Samples with a character that the network cannot write have no loss.
        """
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
        return EvaluationSums(counts, sum(losses), len(losses))

    def init_from(self, path: str) -> None:
        """Take the weights of a bundle, and the classes of the characters that both alphabets have.

        Raises UserError where the bundle's network is another one.
        """
        bundle = initial_bundle(path)
        self._require_like_network(bundle, path)
        known = {character: row for row, character in enumerate(bundle.alphabet, start=1)}
        own_rows, their_rows = [0], [0]  # the blank
        for row, character in enumerate(self.alphabet.characters, start=1):
            if character in known:
                own_rows.append(row)
                their_rows.append(known[character])
        state = self.network.state_dict()
        for name, tensor in bundle.weights().items():
            if name.partition(".")[0] in self.class_layers:
                state[name][own_rows] = tensor[their_rows].to(state[name])
            else:
                state[name].copy_(tensor)

    def _require_like_network(self, bundle: Bundle, path: str) -> None:
        ours, theirs = resolved(self.config.ctc), dict(bundle.model)
        differing = [
            key
            for key in {**theirs, **ours}
            if key not in _NOT_THE_NETWORK and ours.get(key) != theirs.get(key)
        ]
        if differing:
            settings = " ".join(
                f"model.{key}={theirs[key]}" for key in theirs if key not in _NOT_THE_NETWORK
            )
            raise UserError(
                f"{path}: another network than this run's "
                f"(model.{', model.'.join(differing)} differs); set {settings}"
            )

    @property
    def train_texts(self) -> list[str]:
        """The text of each usable training sample that is not only replayed."""
        return self.train.texts[: len(self.train) - self.replayed]

    def _line(self, index: int, epoch: int, redrawn: Pixels | None, needed: int) -> Pixels:
        """Return a training sample as the network gets it.

        A redrawn image that is too narrow for its label is replaced by the data set's image.
        """
        seed, network, id = self.config.train.seed, self.config.ctc, self.train_ids[index]
        if redrawn is not None:
            if self.recognizer.image_mode != "L":
                redrawn = np.repeat(redrawn[:, :, None], 3, axis=2)
            line = as_line(augment(redrawn, self.config.augment, seed, epoch, id), network)
            if network.outputs(input_width(line.shape[1], network)) >= needed:
                return line
        return as_line(augment(self._lines[index], self.config.augment, seed, epoch, id), network)

    def _decode(self, index: int) -> Pixels:
        """Return a training image before augmentation, no higher than the network's lines need.

        Lines are trimmed and scaled after augmentation.
        """
        line = self._open(self.train, index)
        most = _AUGMENTED_HEIGHT * self.config.ctc.height_px
        return scale_to_height(line, min(line.shape[0], most))

    def _open(self, data: Dataset | Subset, index: int) -> Pixels:
        return open_image(
            data.image_bytes(index),
            self.recognizer.image_mode,
            where=f"{data.location}: sample {data.ids[index]}",
        )


class _LineCache:
    """Decoded training lines, kept up to a limit of bytes; further ones are decoded each time."""

    def __init__(self, decode: Callable[[int], Pixels]) -> None:
        self._decode, self._kept, self._bytes = decode, dict[int, Pixels](), 0

    def __getitem__(self, index: int) -> Pixels:
        line = self._kept.get(index)
        if line is None:
            line = self._decode(index)
            if self._bytes + line.nbytes <= _LINES_IN_MEMORY_BYTES:
                self._kept[index], self._bytes = line, self._bytes + line.nbytes
        return line
