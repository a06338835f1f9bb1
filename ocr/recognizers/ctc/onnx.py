"""CTC networks in ONNX: exported from torch, made int8 by static quantisation, read by onnxruntime.

Legend: T output columns, B batch, C channels, H height, W width, K classes.
"""

import tempfile
import warnings
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from ocr.images import Pixels
from ocr.onnx_session import onnx_session
from ocr.recognizers.ctc.decoding import Floats, Ints
from ocr.recognizers.ctc.inputs import as_line, collate
from ocr.recognizers.ctc.settings import NetworkSettings

if TYPE_CHECKING:
    from ocr.recognizers.ctc.layers import CtcNetwork

_OPSET = 17
_BATCH = 32  # images per batch when int8 ranges are measured
_HALF_FROM = 4096  # least number of values of a tensor that is stored in half precision


class OnnxBackend:
    """An exported network in onnxruntime on the CPU, with OMP_NUM_THREADS threads where set."""

    def __init__(self, content: bytes) -> None:
        self._session = onnx_session(content)

    def logits(self, ink_BCHW: Floats, widths_B: Ints) -> tuple[Floats, Ints]:
        """Return class logits [T, B, K] and output lengths [B]."""
        logits_TBK, lengths_B = self._session.run(None, {"ink": ink_BCHW, "widths": widths_B})
        return logits_TBK, lengths_B


def to_onnx(network: "CtcNetwork", settings: NetworkSettings) -> bytes:
    """Export the network in fp32 with free batch size, and free width unless that is fixed.

    torch's newer exporter would fix the width to the example's.
    """
    import torch

    width = settings.fixed_width_px or 16 * settings.columns_per_output
    ink_BCHW = torch.rand(2, settings.channels, settings.height_px, width)
    widths_B = torch.tensor([width, 3 * width // 4])
    ink_axes = {0: "batch"} if settings.fixed_width_px else {0: "batch", 3: "width"}
    axes = {
        "ink": ink_axes,
        "widths": {0: "batch"},
        "logits": {0: "columns", 1: "batch"},
        "lengths": {0: "batch"},
    }
    was_training = network.training
    with tempfile.TemporaryDirectory() as folder, warnings.catch_warnings():
        # about the exporter's age, and about free batch sizes of an LSTM
        warnings.simplefilter("ignore")
        torch.onnx.export(
            network.eval(),
            (ink_BCHW, widths_B),
            Path(folder) / "fp32.onnx",
            input_names=["ink", "widths"],
            output_names=["logits", "lengths"],
            dynamic_axes=axes,
            opset_version=_OPSET,
            dynamo=False,
        )
        network.train(was_training)
        return (Path(folder) / "fp32.onnx").read_bytes()


def to_int8(content: bytes, images: Sequence[Pixels], settings: NetworkSettings) -> bytes:
    """Quantise convolutions and matrix products to int8, per channel; LSTMs stay fp32.

    The ranges are those on these images (in the network's mode). They are fixed here, so a
    neighbour in a batch never changes a reading.
    """
    from onnxruntime.quantization import CalibrationMethod, QuantFormat, QuantType, quantize_static
    from onnxruntime.quantization.shape_inference import quant_pre_process

    with tempfile.TemporaryDirectory() as folder:
        given, ready, made = (
            str(Path(folder) / name) for name in ("fp32.onnx", "ready.onnx", "int8.onnx")
        )
        Path(given).write_bytes(content)
        quant_pre_process(given, ready, skip_symbolic_shape=True)
        quantize_static(
            ready,
            made,
            _Int8Ranges(images, settings),
            quant_format=QuantFormat.QDQ,
            op_types_to_quantize=["Conv", "MatMul", "Gemm"],
            per_channel=True,
            activation_type=QuantType.QUInt8,
            weight_type=QuantType.QInt8,
            calibrate_method=CalibrationMethod.MinMax,
        )
        return Path(made).read_bytes()


class _Int8Ranges:
    """Batches of images on which quantize_static measures the int8 ranges."""

    def __init__(self, images: Sequence[Pixels], settings: NetworkSettings) -> None:
        self._batches = _batches(images, settings)

    def get_next(self) -> dict[str, Any] | None:
        """Return the next batch's inputs; None at the end."""
        return next(self._batches, None)


def _batches(images: Sequence[Pixels], settings: NetworkSettings) -> Iterator[dict[str, Any]]:
    lines = sorted((as_line(image, settings) for image in images), key=lambda line: line.shape[1])
    for start in range(0, len(lines), _BATCH):
        ink_BCHW, widths_B = collate(lines[start : start + _BATCH], settings)
        yield {"ink": ink_BCHW, "widths": widths_B}


def with_half_weights(content: bytes) -> bytes:
    """Return the model with large fp32 tensors (an int8 model's LSTMs) stored in fp16.

    That is half the file; they are widened to fp32 when the model is loaded.
    """
    import onnx

    model = onnx.load_model_from_string(content)
    stored, casts = [], []
    for tensor in model.graph.initializer:
        values = onnx.numpy_helper.to_array(tensor)
        if values.dtype != np.float32 or values.size < _HALF_FROM:
            stored.append(tensor)
            continue
        stored.append(
            onnx.numpy_helper.from_array(values.astype(np.float16), f"{tensor.name}/half")
        )
        casts.append(
            onnx.helper.make_node(
                "Cast", [f"{tensor.name}/half"], [tensor.name], to=onnx.TensorProto.FLOAT
            )
        )
    nodes = [*casts, *model.graph.node]
    del model.graph.initializer[:], model.graph.node[:]
    model.graph.initializer.extend(stored)
    model.graph.node.extend(nodes)
    result: bytes = model.SerializeToString()
    return result
