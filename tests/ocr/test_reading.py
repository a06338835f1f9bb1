"""Reading: batch, padding and order never change a text; a bundle reads as its network does."""

from pathlib import Path

import numpy as np
import pytest
import torch

from ocr.alphabet import Alphabet
from ocr.bundle import WEIGHTS, Bundle, open_bundle, weights_file, write_bundle
from ocr.dataset.read import Dataset
from ocr.errors import UserError
from ocr.images import Pixels, open_image
from ocr.recognizers.ctc.decoding import Decoder
from ocr.recognizers.ctc.inputs import as_line, collate
from ocr.recognizers.ctc.layers import CtcNetwork, MicroBatchNorm
from ocr.recognizers.ctc.networks import TorchBackend, build_network
from ocr.recognizers.ctc.reading import CtcRecognizer
from ocr.recognizers.ctc.settings import (
    CompactSettings,
    CrnnSettings,
    MobileNetSettings,
    NetworkSettings,
    SvtrSettings,
)
from ocr.recognizers.factory import load
from ocr.settings import resolved

SETTINGS: dict[str, NetworkSettings] = {
    "compact": CompactSettings(size="small"),
    "crnn": CrnnSettings(),
    "mobilenet_v3_crnn": MobileNetSettings(),
    "svtr": SvtrSettings(),
}


@pytest.fixture(scope="module")
def words() -> list[Pixels]:
    """The 2,000 validation images."""
    data = Dataset.open("odia_words", "validation")
    return [open_image(data.image_bytes(index)) for index in range(len(data))]


def recognizer(kind: str) -> CtcRecognizer:
    """Return an untrained network with long and varied readings, so that any disturbance shows."""
    torch.manual_seed(3)
    alphabet = Alphabet.from_texts(Dataset.open("odia_words", "train").texts)
    network = build_network(SETTINGS[kind], len(alphabet))
    if kind in ("mobilenet_v3_crnn", "svtr"):
        gather_statistics(network, SETTINGS[kind])
    network.eval()
    with torch.no_grad():
        network.classes.weight.mul_(40)  # type: ignore[union-attr, operator]
        network.classes.bias[0] = -1.0  # type: ignore[index, operator]
    return CtcRecognizer(TorchBackend(network), Decoder(alphabet), SETTINGS[kind])


@torch.no_grad()
def gather_statistics(network: CtcNetwork, settings: NetworkSettings) -> None:
    """So many layers with the statistics of nothing would give the same for every image."""
    network(
        torch.rand(4, 3, settings.height_px, settings.fixed_width_px or 96),
        torch.tensor([96, 80, 64, 96]),
    )
    for norm in (module for module in network.modules() if isinstance(module, MicroBatchNorm)):
        norm.momentum = 1.0
        norm.absorb(norm.step_sums.clone())


def in_mode(kind: str, images: list[Pixels]) -> list[Pixels]:
    return (
        images
        if kind == "compact"
        else [np.repeat(image[:, :, None], 3, axis=2) for image in images]
    )


@pytest.mark.parametrize(
    ("kind", "count"), [("compact", 2000), ("crnn", 60), ("mobilenet_v3_crnn", 60), ("svtr", 40)]
)
def test_an_image_reads_the_same_alone_and_in_any_batch(
    kind: str, count: int, words: list[Pixels]
) -> None:
    reader, images = recognizer(kind), in_mode(kind, words[:count])
    order = np.random.default_rng(1).permutation(count)
    together = reader.read([images[i] for i in order])
    alone = [reader.read([image])[0].text for image in images]
    assert sum(len(set(text)) for text in alone) > 2 * count
    assert [together[int(np.flatnonzero(order == i)[0])].text for i in range(count)] == alone


def test_a_wide_image_does_not_pad_the_narrow_ones(words: list[Pixels]) -> None:
    reader, shapes = recognizer("compact"), list[tuple[int, ...]]()
    computed = reader.backend.logits

    class Seen:
        def logits(self, ink: np.ndarray, widths: np.ndarray) -> object:
            shapes.append((ink.shape[0], ink.shape[3] // int(widths.min())))
            return computed(ink, widths)

    reader.backend = Seen()  # type: ignore[assignment]
    narrow, wide = words[:15], np.concatenate([words[0]] * 40, axis=1)
    read = reader.read([wide, *narrow])
    assert sum(count for count, _ in shapes) == 16
    assert max(padded for _, padded in shapes) <= 2
    assert shapes[-1][0] == 1
    assert read[1:] == reader.read(narrow)


@pytest.mark.parametrize("kind", SETTINGS)
def test_nothing_beyond_an_images_own_width_reaches_its_logits(
    kind: str, words: list[Pixels]
) -> None:
    reader, images = recognizer(kind), in_mode(kind, words[:8])
    line, wide = (
        as_line(np.concatenate([images[0]] * times, axis=1), reader.settings) for times in (1, 3)
    )
    near_TBK, lengths_B = reader.backend.logits(*collate([line], reader.settings))
    far_TBK, far_lengths_B = reader.backend.logits(*collate([line, wide], reader.settings))
    assert lengths_B.tolist() == far_lengths_B[:1].tolist() == [near_TBK.shape[0]]
    assert np.allclose(
        near_TBK, far_TBK[: near_TBK.shape[0], :1], atol=1e-5 * float(np.abs(near_TBK).max())
    )


def test_the_thai_systems_network_weighs_what_paddleocrs_does() -> None:
    """Compare the size with the original's best_accuracy.pdparams of 9,205,880 bytes.

    It holds weights and running statistics in fp32, Paddle's second, flat copy of the LSTM, and
    names.
    """
    network = build_network(SETTINGS["mobilenet_v3_crnn"], 881)
    numbers = {name: tensor.numel() for name, tensor in network.state_dict().items()}
    stored = 4 * (
        sum(numbers.values())
        + sum(count for name, count in numbers.items() if name.startswith("lstm."))
    )
    assert 0.995 < stored / 9_205_880 < 1
    logits_TBK, lengths_B = network.eval()(torch.zeros(1, 3, 32, 320), torch.tensor([320]))
    assert logits_TBK.shape == (80, 1, 881) and lengths_B.tolist() == [80]


def bundle_at(path: Path, reader: CtcRecognizer) -> None:
    model = resolved(SETTINGS["compact"])
    characters = list(reader.decoder.alphabet.characters)
    weights = weights_file(reader.backend.network.state_dict())  # type: ignore[attr-defined]
    write_bundle(
        Bundle(path, "ctc", "test", model, characters, {"torch": 0.5}, {"cpu": "torch"}),
        {WEIGHTS: weights},
    )


def test_the_corrections_systems_network_has_the_size_that_is_set() -> None:
    def sizes(settings: CrnnSettings) -> dict[str, tuple[int, ...]]:
        state = build_network(settings, 65).state_dict()
        return {name: tuple(tensor.shape) for name, tensor in state.items()}

    usual, small = sizes(CrnnSettings()), sizes(CrnnSettings(hidden_size=32, num_layers=1))
    assert usual["lstm.forwards.1.weight_ih_l0"] == (4 * 256, 2 * 256)
    assert small["lstm.forwards.0.weight_hh_l0"] == (4 * 32, 32)
    assert small["classes.weight"][1] == 2 * 32
    assert "lstm.forwards.1.weight_ih_l0" not in small


def test_a_bundle_reads_what_its_network_reads(tmp_path: Path, words: list[Pixels]) -> None:
    reader = recognizer("compact")
    bundle_at(tmp_path / "bundle", reader)
    assert load(tmp_path / "bundle").read(words[:50]) == reader.read(words[:50])


def test_a_damaged_bundle_is_named_and_not_read(tmp_path: Path) -> None:
    bundle_at(tmp_path / "bundle", recognizer("compact"))
    weights = tmp_path / "bundle" / "weights.safetensors"
    data = bytearray(weights.read_bytes())
    data[len(data) // 2] ^= 1
    weights.write_bytes(data)
    with pytest.raises(UserError, match=r"weights\.safetensors"):
        open_bundle(tmp_path / "bundle")
    with pytest.raises(UserError, match="expected a bundle"):
        open_bundle(tmp_path)
