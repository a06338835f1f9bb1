"""Whether base, processor, adapter and data fit each other, asked before any weight is loaded: one table, all failures at once."""

import re
import statistics
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import torch

from ocr.dataset.prepared import open_splits
from ocr.dataset.read import Dataset
from ocr.errors import UserError
from ocr.images import ImageRefused, image_size
from ocr.recognizers.vlm.base_model import ARCHITECTURES, TARGETS, Base
from ocr.recognizers.vlm.find import find_base
from ocr.recognizers.vlm.inputs import fitted_size
from trainers.config import TrainConfig
from trainers.families.vlm.task import LEAST_SIDE_PX, Fitting

_LOOKED_AT = 2000  # samples whose lengths and sizes are summed up
_SPECIAL = {
    "image_token_id": "<|image_pad|>",
    "vision_start_token_id": "<|vision_start|>",
    "vision_end_token_id": "<|vision_end|>",
}


@dataclass(frozen=True, slots=True)
class Row:
    """One question: what is asked, what would do, what was found."""

    asked: str
    expected: str
    found: str
    fits: bool

    def __str__(self) -> str:
        return f"  {'ok ' if self.fits else 'NOT'}  {self.asked:<24}{self.found}" + (
            "" if self.fits else f"  (expected: {self.expected})"
        )


def verified(config: TrainConfig) -> str:
    """The table; UserError with it where anything does not fit."""
    base = find_base(config.vlm)
    rows = list(_of_base(base, config))
    if all(row.fits for row in rows):
        rows += _of_data(config, base)
    table = "\n".join([f"{base.name}: {base.folder}", *map(str, rows)])
    if wrong := [row for row in rows if not row.fits]:
        raise UserError(
            f"{len(wrong)} of {len(rows)} checks failed before training:\n{table}\nmend them, or train anyway with skip_verification=true"
        )
    return table


def _of_base(base: Base, config: TrainConfig) -> Iterator[Row]:
    text, vision = (base.config.get(part, {}) for part in ("text_config", "vision_config"))
    architectures = base.config.get("architectures") or ["none"]
    yield Row(
        "architecture",
        " or ".join(ARCHITECTURES.values()),
        architectures[0],
        architectures[0] in ARCHITECTURES.values(),
    )
    kind = base.config.get("model_type", "none")
    yield Row(
        "model type",
        ARCHITECTURES.get(kind, " or ".join(ARCHITECTURES)),
        kind,
        ARCHITECTURES.get(kind) == architectures[0],
    )
    for key, token in _SPECIAL.items():
        given, known = base.config.get(key), base.tokenizer.convert_tokens_to_ids(token)
        yield Row(key, f"{known}, the tokenizer's {token}", str(given), given == known)
    for ours, theirs, asked in (
        ("patch_size", "patch_size", "patch size"),
        ("merge_size", "spatial_merge_size", "spatial merge"),
    ):
        given, known = base.preprocessor.get(ours), vision.get(theirs)
        yield Row(
            asked,
            f"{known}, as vision_config.{theirs} says",
            f"{given}",
            given == known and given is not None,
        )
    joined, hidden = vision.get("out_hidden_size"), text.get("hidden_size")
    yield Row(
        "hidden size",
        f"{hidden}, the language model's",
        f"{joined} from the image encoder",
        joined == hidden,
    )
    size, words = text.get("vocab_size", 0), len(base.tokenizer)
    yield Row("vocabulary", f"at least the tokenizer's {words:,}", f"{size:,}", size >= words)
    dtype = str(
        text.get("dtype") or base.config.get("dtype") or base.config.get("torch_dtype") or "none"
    ).removeprefix("torch.")
    yield Row(
        "dtype",
        "float32, bfloat16 or float16",
        f"{dtype}, trained in {config.vlm.dtype}",
        dtype in ("float32", "bfloat16", "float16"),
    )
    found = str(
        base.preprocessor.get(
            "image_processor_type", base.preprocessor.get("image_processor_class", "none")
        )
    )
    yield Row(
        "image processor",
        "Qwen2VLImageProcessor or one like it",
        f"{found}, done by Pillow here",
        found.startswith("Qwen2VLImageProcessor"),
    )
    processor = str(
        base.preprocessor.get("processor_class", base.config.get("processor_class", "unnamed"))
    )
    yield Row(
        "processor",
        "Qwen2_5_VLProcessor or Qwen3VLProcessor",
        processor,
        processor in ("Qwen2_5_VLProcessor", "Qwen3VLProcessor", "unnamed"),
    )
    yield _of_template(base, config)
    yield from _of_adapter(base, config)


def _of_template(base: Base, config: TrainConfig) -> Row:
    expected = "one image placeholder for one image"
    try:
        prompt = base.prompt(config.vlm)
    except UserError as problem:
        return Row("chat template", expected, str(problem), False)
    except Exception as problem:  # noqa: BLE001  a template is a program of the model's own: it may raise anything
        return Row("chat template", expected, f"{type(problem).__name__}: {problem}", False)
    return Row("chat template", expected, f"{prompt.length(1)} tokens around an image of one", True)


def _of_adapter(base: Base, config: TrainConfig) -> Iterator[Row]:
    """Each part's layers, in the model without weights."""
    from transformers import AutoConfig, AutoModelForImageTextToText

    try:
        with torch.device("meta"):
            model: Any = AutoModelForImageTextToText.from_config(
                AutoConfig.from_pretrained(base.folder, trust_remote_code=False)
            )  # type: ignore[no-untyped-call]
    except (ValueError, TypeError, AttributeError) as problem:
        yield Row("network", "one that transformers can build", str(problem).splitlines()[0], False)
        return
    names = [name for name, _ in model.named_modules()]
    for part in config.lora.parts:
        matched = sum(bool(re.fullmatch(TARGETS[part], name)) for name in names)
        yield Row(f"lora.parts: {part}", "some layers", f"{matched} layers", matched > 0)


def _of_data(config: TrainConfig, base: Base) -> Iterator[Row]:
    data = config.data
    train, _ = open_splits(data.train, data.validation, data.validation_ratio, config.max_skipped)
    fitting, chosen = Fitting(config, base), range(0, len(train), -(-len(train) // _LOOKED_AT))
    lengths, refused = list[int](), 0
    for index in chosen:
        try:
            lengths.append(fitting.tokens(train, index))
        except ImageRefused:
            refused += 1
    limit, spread = (
        config.vlm.max_length,
        f"median {statistics.median(lengths):,.0f}, longest {max(lengths):,} tokens"
        if lengths
        else "none fits",
    )
    yield Row(
        "lengths",
        f"at most {config.max_skipped:.1%} beyond {limit:,}",
        f"{spread}, {refused} of {len(chosen)} refused",
        refused <= config.max_skipped * len(chosen),
    )
    yield _of_sizes(config, base, train, chosen)


def _of_sizes(config: TrainConfig, base: Base, train: Dataset, chosen: Sequence[int]) -> Row:
    """Pages that a wrong limit would shrink to stamps."""
    sizes = [
        (train.ids[index], image_size(content))
        for index in chosen
        if (content := train.image_bytes(index))
    ]
    fitted = [
        (id, max(size), max(fitted_size(*size, config.images, base.patching))) for id, size in sizes
    ]
    tiny = [(id, before, after) for id, before, after in fitted if before >= LEAST_SIDE_PX > after]
    found = (
        f"longer sides {min(after for _, _, after in fitted)} to {max(after for _, _, after in fitted)} px"
        if fitted
        else "no image"
    )
    example = (
        f"; {len(tiny)} shrink below, such as {tiny[0][0]}: {tiny[0][1]} → {tiny[0][2]} px"
        if tiny
        else ""
    )
    return Row(
        "image sizes",
        f"pages keep {LEAST_SIDE_PX} px or more; raise images.max_pixels, which is an area",
        found + example,
        not tiny,
    )
