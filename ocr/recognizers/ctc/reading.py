"""Reading with a CTC network: prepare images, run them by width on a backend, decode.

Legend: B batch, C channels, H height, W width, T output columns, K classes.
"""

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, Literal, Protocol

import numpy as np

from ocr.alphabet import Alphabet
from ocr.bundle import (
    DESCRIPTION,
    ENTRIES,
    LANGUAGE_MODEL,
    LEXICON,
    OTHER_VERSION,
    WEIGHTS,
    Bundle,
    opening,
)
from ocr.errors import UserError
from ocr.images import Pixels
from ocr.recognizers.ctc.alignment import align
from ocr.recognizers.ctc.calibration import Calibration
from ocr.recognizers.ctc.decoding import Decoder, Floats, Ints, log_likelihoods, log_softmax
from ocr.recognizers.ctc.inputs import MARGIN_PX, as_line, collate, has_ink
from ocr.recognizers.ctc.language_model import CharacterModel
from ocr.recognizers.ctc.lexicon import Lexicon
from ocr.recognizers.ctc.settings import NETWORK_SETTINGS, DecodingSettings, NetworkSettings
from ocr.recognizers.recognizer import PixelReader, like_sizes
from ocr.recognizers.words import Span, guessed_spans, spans_between
from ocr.sample import Reading
from ocr.settings import parse_settings

READ_BATCH = 32
# widest image of a batch, in widths of the narrowest: padding costs as much as reading
NOTHING = Reading("", 0.0)  # of an image without ink
_WIDEST = 2.0


class Backend(Protocol):
    """A network in torch or ONNX that computes class logits."""

    def logits(self, ink_BCHW: Floats, widths_B: Ints) -> tuple[Floats, Ints]:
        """Return class logits [T, B, K] and output lengths [B]."""
        ...


class CtcRecognizer(PixelReader):
    """A CTC network with its alphabet; also the live one inside training."""

    reads_pages = False

    def __init__(
        self, backend: Backend, decoder: Decoder, settings: NetworkSettings, name: str = "ctc"
    ) -> None:
        self.backend, self.decoder, self.settings, self.name = backend, decoder, settings, name
        self.image_mode: Literal["L", "RGB"] = "L" if settings.channels == 1 else "RGB"

    def read_pixels(self, images: Sequence[Pixels]) -> list[Reading]:
        """Return one Reading per image; images of similar width share a batch."""
        return [reading for reading, _ in self._in_batches(images, None)]

    def read_and_compare(
        self, images: Sequence[Pixels], references: Sequence[str]
    ) -> list[tuple[Reading, float]]:
        """Return each image's Reading and the CTC loss of its reference.

        The loss is inf where the network cannot write the reference.
        """
        return self._in_batches(images, references)

    def read_words(self, images: Sequence[Pixels]) -> list[tuple[Reading, tuple[Span, ...]]]:
        """Return one Reading per image, and where its words are."""
        lines = [as_line(image, self.settings) for image in images]
        results: dict[int, tuple[Reading, tuple[Span, ...]]] = {}
        for chosen in _by_width([line.shape[1] for line in lines]):
            logits_TBK, lengths_B = self.backend.logits(
                *collate([lines[i] for i in chosen], self.settings)
            )
            log_probs_TBK = log_softmax(logits_TBK)
            decoded = self.decoder.decode(log_probs_TBK, lengths_B)
            readings = self.decoder.readings(decoded, log_probs_TBK, lengths_B)
            for row, index in enumerate(chosen):
                results[index] = (
                    readings[row],
                    self._spans(
                        readings[row],
                        decoded[row],
                        log_probs_TBK[: lengths_B[row], row],
                        lines[index],
                    ),
                )
        return [
            results[index] if has_ink(line) else (NOTHING, ()) for index, line in enumerate(lines)
        ]

    def _spans(
        self, reading: Reading, decoded: Sequence[int], log_probs_TK: Floats, line: Pixels
    ) -> tuple[Span, ...]:
        """Cut where the spaces between the words were written.

        Where a lexicon changed the number of words the cuts are guessed.
        """
        words, text = reading.text.split(), self.decoder.alphabet.decode(decoded)
        if not words or len(text.split()) != len(words):
            return guessed_spans(reading.text, reading.confidence, line)
        columns_N, strengths_N = align(log_probs_TK, decoded)
        letters = np.array([not character.isspace() for character in text])
        of_word = np.cumsum(letters & ~np.concatenate([[False], letters[:-1]])) - 1
        confidences, middles = [], []
        for number in range(len(words)):
            mine = letters & (of_word == number)
            confidences.append(float(np.exp(strengths_N[mine].sum())))
            if number + 1 < len(words):
                last = columns_N[mine].max()
                first = columns_N[letters & (of_word == number + 1)].min()
                middles.append((last + first + 1) / 2)
        scale = self.settings.columns_per_output
        cuts = [(middle * scale - MARGIN_PX) / line.shape[1] for middle in middles]
        return spans_between(words, [min(1.0, max(0.0, cut)) for cut in cuts], confidences, line)

    def _in_batches(
        self, images: Sequence[Pixels], references: Sequence[str] | None
    ) -> list[tuple[Reading, float]]:
        lines = [as_line(image, self.settings) for image in images]
        results: dict[int, tuple[Reading, float]] = {}
        for chosen in _by_width([line.shape[1] for line in lines]):
            wanted = [references[i] for i in chosen] if references is not None else None
            results.update(
                zip(chosen, self._read_batch([lines[i] for i in chosen], wanted), strict=True)
            )
        return [
            results[index] if has_ink(line) else _nothing(*results[index])
            for index, line in enumerate(lines)
        ]

    def _read_batch(
        self, lines: Sequence[Pixels], references: Sequence[str] | None
    ) -> list[tuple[Reading, float]]:
        logits_TBK, lengths_B = self.backend.logits(*collate(lines, self.settings))
        log_probs_TBK = log_softmax(logits_TBK)
        readings = [
            Reading(reading.text, reading.confidence, (int(length), len(reading.text)))
            for reading, length in zip(
                self.decoder.read(log_probs_TBK, lengths_B), lengths_B, strict=True
            )
        ]
        if references is None:
            return [(reading, 0.0) for reading in readings]
        targets = [self.decoder.alphabet.encode_known(reference) for reference in references]
        return list(
            zip(
                readings,
                (-log_likelihoods(log_probs_TBK, lengths_B, targets)).tolist(),
                strict=True,
            )
        )


def _nothing(read: Reading, loss: float) -> tuple[Reading, float]:
    """Return the reading of an image without ink."""
    return Reading(NOTHING.text, NOTHING.confidence, (read.tokens[0], 0)), loss


def _by_width(widths: Sequence[int]) -> Iterator[list[int]]:
    """Yield batches of indices of similar widths."""
    return like_sizes(
        widths,
        lambda batch, index: (
            len(batch) < READ_BATCH and widths[index] <= _WIDEST * widths[batch[0]]
        ),
    )


def network_settings(values: dict[str, Any], where: str) -> NetworkSettings:
    """Return the settings of a CTC network from a bundle's plain values."""
    kind = values.get("kind")
    if not isinstance(kind, str) or kind not in NETWORK_SETTINGS:
        known = ", ".join(NETWORK_SETTINGS)
        raise UserError(f"{where}: unknown network {kind!r}; known: {known}; {OTHER_VERSION}")
    with opening(Path(where)):
        return parse_settings(NETWORK_SETTINGS[kind], values, where)


def load_ctc(bundle: Bundle, backend: str | None, device: str | None) -> CtcRecognizer:
    """Return the recogniser of a CTC bundle; UserError for a backend that the bundle lacks."""
    device = device or "cpu"
    backend = backend or bundle.default_backend(device)
    if backend not in bundle.backends:
        raise UserError(
            f"{bundle.path}: no backend {backend!r}; this bundle has {', '.join(bundle.backends)}"
        )
    settings = network_settings(bundle.model, str(bundle.path))
    network = _backend(bundle, settings, backend, device)
    _require_fit(network, bundle, settings)
    return CtcRecognizer(network, sealed_decoder(bundle), settings, bundle.name)


def _require_fit(network: Backend, bundle: Bundle, settings: NetworkSettings) -> None:
    """Raise UserError unless the network reads an image of these settings into the alphabet."""
    shape = (settings.height_px, settings.height_px, 3)[: 2 if settings.channels == 1 else 3]
    blank = as_line(np.full(shape, 255, np.uint8), settings)
    with opening(bundle.path / DESCRIPTION):
        classes = network.logits(*collate([blank], settings))[0].shape[2]
        if classes != len(bundle.alphabet) + 1:
            raise UserError(
                f"{bundle.path / DESCRIPTION}: an alphabet of {len(bundle.alphabet)} characters "
                f"for a network of {classes} classes"
            )


def sealed_decoder(bundle: Bundle) -> Decoder:
    """Return the decoder that the bundle was measured with."""
    values = dict(bundle.decoding)
    with opening(bundle.path / DESCRIPTION):
        calibration = Calibration(**values.pop("calibration", {}))
        settings = parse_settings(DecodingSettings, values, f"{bundle.path}: decoding")
    model, lexicon, entries = None, None, tuple[str, ...]()
    if settings.uses_language_model:
        content = bundle.read(LANGUAGE_MODEL)
        with opening(bundle.path / LANGUAGE_MODEL):
            model = CharacterModel.from_bytes(content)
    if settings.lexicon:
        content = bundle.read(LEXICON)
        with opening(bundle.path / LEXICON):
            lexicon = Lexicon.from_bytes(content)
    if settings.method == "closed":
        content = bundle.read(ENTRIES)
        with opening(bundle.path / ENTRIES):
            entries = tuple(content.decode().split("\n"))
    return Decoder(Alphabet(tuple(bundle.alphabet)), settings, model, lexicon, entries, calibration)


def _backend(bundle: Bundle, settings: NetworkSettings, name: str, device: str) -> Backend:
    if name == "torch":
        from ocr.recognizers.ctc.networks import TorchBackend, build_network

        network = build_network(settings, len(bundle.alphabet) + 1)
        bundle.read(WEIGHTS)  # named where it is missing
        with opening(bundle.path / WEIGHTS):
            network.load_state_dict(bundle.weights())
        return TorchBackend(network.eval(), device)
    from ocr.recognizers.ctc.onnx import OnnxBackend

    content = bundle.read(f"{name}.onnx")
    with opening(bundle.path / f"{name}.onnx"):
        return OnnxBackend(content)
