"""Settings of the bundle at the end of a run."""

from typing import Literal

from ocr.settings import PathText, Setting, Settings


class ExportSettings(Settings):
    """The content of the bundle, and how far it may differ from the trained network."""

    backends: tuple[Literal["torch", "onnx-fp32", "onnx-int8"], ...] = Setting(
        ("torch",),
        on_resume="free",
        description="Backends in the bundle, each evaluated before it is written; onnx-int8 is the "
        "fastest on a CPU",
        min_length=1,
    )
    quantization: Literal["nf4", "int8"] | None = Setting(
        None,
        on_resume="free",
        description="Quantisation of the base's matrices by bitsandbytes when the bundle reads; "
        "the card has its CER (vlm)",
    )
    merged_dtype: Literal["bfloat16", "float16", "float32"] = Setting(
        "bfloat16", on_resume="free", description="Dtype of a merged model's weights (vlm)"
    )
    llama_cpp: PathText | None = Setting(
        None,
        on_resume="free",
        description="Folder of a llama.cpp checkout, whose converter writes GGUF files (vlm)",
    )
    vllm: PathText | None = Setting(
        None,
        on_resume="free",
        description="Python of an environment with vLLM (make vllm: .venv-vllm/bin/python), which "
        "also reads the written bundle before it is kept; null: vLLM is not tried (vlm)",
    )
    initial_share: float = Setting(
        0.0,
        ge=0,
        lt=1,
        on_resume="free",
        description="Share of the weights of train.init_from in the bundle's weights, of a new "
        "adapter that of the base; the bundle forgets less (WiSE-FT)",
    )
    half_weights: bool = Setting(
        False,
        on_resume="free",
        description="Whether weights.safetensors is in fp16, which halves its size",
    )
    calibration_images: int = Setting(
        256,
        ge=1,
        on_resume="free",
        description="Number of training images that the ranges of int8 are measured on",
    )
    max_cer_difference: float = Setting(
        0.003,
        ge=0,
        le=1,
        on_resume="free",
        description="Largest difference of a backend's CER from the trained network's (a "
        "hundredth of that CER passes too); beyond it, where the samples are enough to show it, "
        "nothing is exported",
    )
    max_text_difference: float = Setting(
        0.02,
        ge=0,
        le=1,
        on_resume="free",
        description="Largest share of samples that vLLM reads differently (vlm)",
    )
    max_confidence_difference: float = Setting(
        0.03,
        ge=0,
        le=1,
        on_resume="free",
        description="Largest mean difference of confidences from the trained network's (vlm)",
    )
