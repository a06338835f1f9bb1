"""Reading with vLLM as the engine: the prompt, the image size and the rules are those of our loop.

vLLM pins other versions than this project does, so it has an environment of its own (`make vllm`),
and is imported only where a bundle is opened with `backend=vllm`. docs/finetuning.md has the traps.
"""

import contextlib
import gc
import importlib.util
import math
import os
import threading
import weakref
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import torch
from PIL import Image
from torch import Tensor

from ocr.bundle import Bundle
from ocr.errors import UserError, first_line
from ocr.images import Pixels
from ocr.keyed import seed_of
from ocr.recognizers.vlm.adapter_config import require_adapter_config
from ocr.recognizers.vlm.base_model import DTYPES, Base
from ocr.recognizers.vlm.reading import (
    LEAST_REPEATED,
    LEAST_TIMES,
    LONGEST_PERIOD,
    PromptedReader,
)
from ocr.recognizers.vlm.settings import (
    BaseModelSettings,
    GenerationSettings,
    ImageSettings,
    LoraSettings,
)
from ocr.sample import Reading
from ocr.text import normalise

VLLM = "vllm"
_ENVIRONMENT = {
    "VLLM_ENABLE_V1_MULTIPROCESSING": "0",  # the engine lives in this process
    "VLLM_CPU_OMP_THREADS_BIND": "nobind",  # else replicas of one machine get the same cores
    "VLLM_LOGGING_LEVEL": "ERROR",
    "VLLM_NO_USAGE_STATS": "1",
}
_RANKS = (8, 16, 32, 64, 128, 256, 320, 512)  # vLLM's own
# The classes whose image encoder and merger take an adapter; in others vLLM drops that part of it.
_WITH_ADAPTERS = ("qwen2_5_vl", "qwen3_vl")
# vLLM 0.29 looks for this name on a CPU, and the config of Qwen3-VL has none for its language model
_LANGUAGE_MODEL = {"qwen3_vl": "Qwen3ForCausalLM"}
_LEAST_CACHE_BYTES, _BLOCK = 256 << 20, 128
_ONE_AT_A_TIME = threading.Lock()  # engines of one process start and read by vLLM's global state


class VllmRecognizer(PromptedReader):
    """A merged model, or a base with a LoRA adapter, in a vLLM engine of this process."""

    def __init__(
        self,
        engine: Any,
        base: Base,
        settings: BaseModelSettings,
        images: ImageSettings,
        generation: GenerationSettings,
        name: str,
        on_cpu: bool,
        adapter: Any = None,
    ) -> None:
        super().__init__(base, settings, images, generation, name)
        self._engine, self._on_cpu, self._adapter = engine, on_cpu, adapter
        # vLLM exempts all objects that are there when it starts from garbage collection
        weakref.finalize(self, gc.unfreeze)

    def read_pixels(self, images: Sequence[Pixels]) -> list[Reading]:
        """Return one Reading per RGB image; confidence is the product of token probabilities.

        A neighbour changes no text on a CPU. vLLM does not promise that on a GPU.
        """
        prepared = [self.prepared(image) for image in images]
        prompts = [
            {
                "prompt_token_ids": self.prompt.ids(1),  # vLLM repeats the image token itself
                "multi_modal_data": {"image": Image.fromarray(image.permute(1, 2, 0).numpy())},
            }
            for image in prepared
        ]
        with _ONE_AT_A_TIME, _uncompiled(self._on_cpu):
            outputs = self._engine.generate(
                prompts,
                [self._sampling(image) for image in prepared],
                use_tqdm=False,
                lora_request=self._adapter,
            )
        return [
            self._reading(output, image) for output, image in zip(outputs, prepared, strict=True)
        ]

    def _sampling(self, image: Tensor) -> Any:
        """Return how an image's text is generated; the only end is the one of our own loop."""
        from vllm import SamplingParams
        from vllm.sampling_params import RepetitionDetectionParams

        temperature = self.generation.temperature
        # a period below 8 tokens is found as a multiple of it, so a few tokens later than by us
        repetition = RepetitionDetectionParams(
            max_pattern_size=LONGEST_PERIOD,
            min_pattern_size=LEAST_REPEATED // LEAST_TIMES,
            min_count=LEAST_TIMES,
        )
        return SamplingParams(
            temperature=temperature,
            seed=seed_of(image.numpy().tobytes()) if temperature else None,
            max_tokens=self.generation.max_new_tokens,
            stop_token_ids=[self.prompt.end_token],
            ignore_eos=True,
            logprobs=0,
            detokenize=False,
            repetition_detection=repetition if self.generation.stop_on_repetition else None,
        )

    def _reading(self, output: Any, image: Tensor) -> Reading:
        (written,) = output.outputs
        given = len(output.prompt_token_ids)
        tokens = self.base.patching.tokens(image.shape[2], image.shape[1])
        # vLLM would have resized the image otherwise
        assert given == self.prompt.length(tokens), (given, self.prompt.length(tokens))
        ids = list(written.token_ids)
        text = self.base.tokenizer.decode(ids, skip_special_tokens=True)
        confidence = min(1.0, math.exp(written.cumulative_logprob))
        return Reading(normalise(text.strip()), confidence, (given, len(ids)))


def prepare_vllm(where: str) -> None:
    """Set what vLLM reads from the environment, unless it is set; UserError where it is missing."""
    if importlib.util.find_spec("vllm") is None:
        raise UserError(
            f"{where}: backend=vllm needs vLLM, which has an environment of its own: run "
            "`make vllm` once, then .venv-vllm/bin/python in place of python "
            "(docs/finetuning.md, vLLM)"
        )
    for key, value in _ENVIRONMENT.items():
        os.environ.setdefault(key, value)


def load_vllm(
    bundle: Bundle,
    base: Base,
    settings: BaseModelSettings,
    lora: LoraSettings | None,
    images: ImageSettings,
    generation: GenerationSettings,
    device: str,
) -> VllmRecognizer:
    """Return the recogniser of a bundle: of its adapter (`lora`) on the base, or merged.

    UserError where vLLM is for another device, or does not read this adapter or model.
    """
    import vllm
    from vllm.lora.request import LoRARequest

    where, adapter = str(bundle.path), None
    _require_device(device, where)
    on_cpu = device == "cpu"
    options = _model_options(base, settings, images, generation, on_cpu)
    if lora:
        _require_readable(settings, lora, base, where)
        require_adapter_config(bundle.path, lora, None)
        options |= _adapter_options(lora)
        adapter = LoRARequest(bundle.name, 1, where)
    try:
        with _ONE_AT_A_TIME, _own_threads(), _uncompiled(on_cpu):
            engine = vllm.LLM(str(base.folder), **options)
    except (ValueError, RuntimeError, OSError) as problem:
        raise UserError(
            f"{where}: vLLM {vllm.__version__} cannot load it: {first_line(problem)}"
        ) from problem
    return VllmRecognizer(engine, base, settings, images, generation, bundle.name, on_cpu, adapter)


def _require_readable(
    settings: BaseModelSettings, lora: LoraSettings, base: Base, where: str
) -> None:
    """Raise UserError for an adapter that vLLM refuses, or drops a part of."""
    kind = base.config.get("model_type")
    if lora.use_dora:
        why = "its adapter is a DoRA"
    elif settings.quantised:
        why = "its base was quantised by bitsandbytes in training"
    elif lora.rank > _RANKS[-1]:
        why = f"its adapter has rank {lora.rank}, above {_RANKS[-1]}"
    elif kind not in _WITH_ADAPTERS:
        why = f"it is an adapter of a {kind}, tried are {', '.join(_WITH_ADAPTERS)}"
    else:
        return
    raise UserError(
        f"{where}: vLLM cannot read with this bundle as it is: {why}; merge it with "
        "ray_jobs/export.py RUN format=merged, and read with that"
    )


def _require_device(device: str, where: str) -> None:
    from vllm.platforms import current_platform

    kind = current_platform.device_type or "none"
    if device not in (kind, f"{kind}:0"):
        raise UserError(
            f"{where}: the installed vLLM reads on {kind}, and {device} was asked for; another "
            "GPU of the machine is chosen with CUDA_VISIBLE_DEVICES"
        )


@contextlib.contextmanager
def _own_threads() -> Iterator[None]:
    """Keep torch.set_num_threads: on a CPU vLLM replaces it by a warning, in the whole process."""
    kept = torch.set_num_threads
    try:
        yield
    finally:
        torch.set_num_threads = kept


@contextlib.contextmanager
def _uncompiled(on_cpu: bool) -> Iterator[None]:
    """Run without torch.compile on a CPU: an eager vLLM compiles some functions, by g++, too."""
    with torch.compiler.set_stance("force_eager") if on_cpu else contextlib.nullcontext():
        yield


def _model_options(
    base: Base,
    settings: BaseModelSettings,
    images: ImageSettings,
    generation: GenerationSettings,
    on_cpu: bool,
) -> dict[str, Any]:
    text = base.config["text_config"]
    longest = min(
        settings.max_length + generation.max_new_tokens,
        text.get("max_position_embeddings", math.inf),
    )
    named = _LANGUAGE_MODEL.get(str(base.config.get("model_type"))) if on_cpu else None
    return {
        "dtype": settings.dtype,
        "max_model_len": longest,
        "max_num_seqs": generation.batch_size,
        # explicit, since vLLM else takes most of the memory, and refuses where it is not free
        "kv_cache_memory_bytes": _cache_bytes(text, settings, longest, generation.batch_size),
        "gpu_memory_utilization": 0.01,
        "enforce_eager": on_cpu,
        "enable_prefix_caching": False,
        "mm_processor_cache_gb": 0,
        "limit_mm_per_prompt": {"image": 1, "video": 0},
        # images come at the size that they are read at, within these bounds
        "mm_processor_kwargs": {
            "size": {
                "shortest_edge": base.patching.token_pixels,
                "longest_edge": images.max_pixels,
            }
        },
        "hf_overrides": {"text_config": {"architectures": [named]}} if named else {},
        "generation_config": "vllm",  # nothing from the base's generation_config.json
        "use_tqdm_on_load": False,
        "trust_remote_code": False,
    }


def _cache_bytes(
    text: Mapping[str, Any], settings: BaseModelSettings, longest: int, sequences: int
) -> int:
    """Return twice the bytes that keys and values of so many longest sequences take."""
    assert settings.dtype != "auto"  # sealed as it was trained
    head = text.get("head_dim") or text["hidden_size"] // text["num_attention_heads"]
    values = 2 * text["num_hidden_layers"] * text["num_key_value_heads"] * head
    blocks = math.ceil(longest / _BLOCK) + 1
    needed = sequences * blocks * _BLOCK * values * DTYPES[settings.dtype].itemsize
    return int(max(_LEAST_CACHE_BYTES, 2 * needed))


def _adapter_options(lora: LoraSettings) -> dict[str, Any]:
    return {
        "enable_lora": True,
        "max_lora_rank": next(rank for rank in _RANKS if rank >= lora.rank),
        # without it those parts of the adapter are dropped without a word
        "enable_tower_connector_lora": bool({"vision", "merger"} & set(lora.parts)),
    }
