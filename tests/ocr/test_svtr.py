"""SVTR: PaddleOCR's weights, one size of input, and the same readings from every backend."""

import numpy as np
import pytest
import torch

from ocr.dataset.read import Dataset
from ocr.errors import UserError
from ocr.images import Pixels, open_image
from ocr.recognizers.ctc.inputs import MARGIN_PX, as_line, collate
from ocr.recognizers.ctc.layers import CtcNetwork
from ocr.recognizers.ctc.networks import TorchBackend, build_network
from ocr.recognizers.ctc.onnx import OnnxBackend, to_int8, to_onnx, with_half_weights
from ocr.recognizers.ctc.reading import network_settings
from ocr.recognizers.ctc.settings import SvtrSettings

SHORT = SvtrSettings(width_px=64, out_char_num=16)


def black_at_the_end(width_px: int) -> Pixels:
    """A white RGB line, its last tenth black over nearly the whole height."""
    pixels = np.full((64, width_px, 3), 255, np.uint8)
    pixels[4:60, -(width_px // 10) :] = 0
    return pixels


def test_the_network_weighs_what_paddleocrs_does() -> None:
    """Count by hand: rec_svtrnet.py at [64, 256], CTCHead for 880 entries and the blank.

    stem          3 → 32, 3 × 3, bias, batch norm       864 + 32 + 64                  960
                  32 → 64                               18,432 + 64 + 128           18,624
    pos_embed     64 channels of 16 × 64 patches                                    65,536
    block of C    qkv 3C² + 3C, proj C² + C, mlp 8C² + 5C, two norms 4C = 12C² + 13C
    3 blocks      of 64                                 3 × 49,984                 149,952
    merge         64 → 128, 3 × 3, bias, layer norm     73,728 + 128 + 256          74,112
    6 blocks      of 128                                6 × 198,272              1,189,632
    merge         128 → 256                             294,912 + 256 + 512        295,680
    3 blocks      of 256                                3 × 789,760              2,369,280
    last_conv     256 → 192, no bias                                                49,152
    head          192 → 881                             169,152 + 881              170,033
    """
    network = build_network(SvtrSettings(), 881)
    by_hand = (
        19_584 + 65_536 + 149_952 + 74_112 + 1_189_632 + 295_680 + 2_369_280 + 49_152 + 170_033
    )
    assert sum(parameter.numel() for parameter in network.parameters()) == by_hand == 4_382_961
    logits_TBK, lengths_B = network.eval()(torch.zeros(2, 3, 64, 256), torch.tensor([256, 256]))
    assert logits_TBK.shape == (25, 2, 881) and lengths_B.tolist() == [25, 25]


@pytest.mark.parametrize(("width_px", "columns"), [(100, 100), (248, 248), (249, 248), (2000, 248)])
def test_a_line_wider_than_the_input_is_squeezed_into_it_whole(width_px: int, columns: int) -> None:
    line = as_line(black_at_the_end(width_px), SvtrSettings())
    ink_BCHW, widths_B = collate([line], SvtrSettings())
    assert (
        line.shape == (64, columns, 3)
        and ink_BCHW.shape == (1, 3, 64, 256)
        and widths_B.tolist() == [256]
    )
    inked = np.flatnonzero(ink_BCHW[0, 0, 32] > 0.5)
    assert inked[-1] == MARGIN_PX + columns - 1 and len(inked) == pytest.approx(columns / 10, abs=1)
    assert not ink_BCHW[0, :, :, MARGIN_PX + columns :].any()


def test_every_backend_reads_the_same_alone_and_in_a_batch() -> None:
    network, data = varied(), Dataset.open("odia_words", "validation")
    images = [open_image(data.image_bytes(index), "RGB") for index in range(12)]
    ink_BCHW, widths_B = collate([as_line(image, SHORT) for image in images], SHORT)
    expected_TBK, _ = TorchBackend(network).logits(ink_BCHW, widths_B)
    exported = to_onnx(network, SHORT)
    for content, close in (
        (exported, 1e-4),
        (with_half_weights(to_int8(exported, images[:8], SHORT)), 0.3),
    ):
        backend = OnnxBackend(content)
        logits_TBK, lengths_B = backend.logits(ink_BCHW, widths_B)
        alone = [
            backend.logits(ink_BCHW[i : i + 1], widths_B[i : i + 1])[0] for i in range(len(images))
        ]
        assert lengths_B.tolist() == [16] * len(images)
        assert np.array_equal(np.concatenate(alone, axis=1), logits_TBK)
        assert np.abs(logits_TBK - expected_TBK).max() < close * np.abs(expected_TBK).max()


def varied() -> CtcNetwork:
    """An untrained network whose logits differ from image to image."""
    torch.manual_seed(3)
    network = build_network(SHORT, 100).eval()
    with torch.no_grad():
        network.classes.weight.mul_(40)  # type: ignore[union-attr, operator]
    return network


def test_more_outputs_than_patches_are_refused() -> None:
    with pytest.raises(
        UserError, match="out_char_num=25 outputs, but width_px=96 has 24 patches in a row"
    ):
        network_settings({"kind": "svtr", "width_px": 96}, "here")
