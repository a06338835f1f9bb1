"""The CTC family as a Task: batches of lines, their losses, and evaluation."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from math import isfinite

import numpy as np
import torch
from torch import Tensor, nn

from ocr.bundle import Bundle
from ocr.dataset.joined import Joined
from ocr.dataset.read import Dataset
from ocr.errors import UserError
from ocr.images import Pixels, open_image, scale_to_height
from ocr.keyed import key_of
from ocr.recognizers.ctc.decoding import Decoder
from ocr.recognizers.ctc.inputs import as_line, collate, input_width
from ocr.recognizers.ctc.layers import MicroBatchNorm
from ocr.recognizers.ctc.networks import TorchBackend, build_network
from ocr.recognizers.ctc.reading import CtcRecognizer, network_settings
from ocr.scoring import Counts, score
from ocr.settings import resolved
from trainers.config import TrainConfig
from trainers.families.ctc.augment import augment
from trainers.families.ctc.initial import initial_bundle
from trainers.families.ctc.losses import ctc_losses, outputs_needed
from trainers.families.ctc.redrawn_images import RedrawnImages
from trainers.families.ctc.samples import CtcUsableSamples
from trainers.families.splits import Subset, Trained
from trainers.families.task import EvaluationSums, Losses, MicroBatch

_LINES_IN_MEMORY_BYTES = 512 * 1024 * 1024
_READ_AT_ONCE = 256
# settings of model that do not change the network's layers
_NOT_THE_NETWORK = (
    "alphabet",
    "character_dict_path",
    "use_space_char",
    "dropout",
    "crop",
    "stretch",
)
_AUGMENTED_HEIGHT = 2  # in heights of the network's lines


@dataclass(frozen=True, slots=True)
class CtcBatch:
    """One micro-batch: ink [B, C, H, W], widths [B] in columns, targets and their lengths [B].

    The targets of all samples are concatenated, [S].
    """

    ink_BCHW: Tensor
    widths_B: Tensor
    targets_S: Tensor
    target_lengths_B: Tensor


class CtcTask:
    """A network of the CTC family with its data; `usable` comes from `usable_samples`."""

    parameters_used_directly: Sequence[tuple[nn.Module, nn.Parameter]] = ()

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
        """Return id, reference and present reading of the first validation sample."""
        index = self.validation[0]
        data, reference = self.validation_data, self.validation_data.texts[index]
        image = self._open(data, index)
        ((reading, _),) = self.recognizer.read_and_compare([image], [reference])
        return {"id": data.ids[index], "reference": reference, "reading": reading.text}

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
        # parsed, so that a setting that is newer than the bundle has its default
        ours, theirs = (
            resolved(network)
            for network in (self.config.ctc, network_settings(dict(bundle.model), path))
        )
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
