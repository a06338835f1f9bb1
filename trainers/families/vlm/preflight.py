"""The preflight of a VLM run: whether base, processor, adapter and data fit, before weights load.

One table with all failures at once.
"""

import re
import statistics
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import torch

from ocr.dataset.read import Dataset
from ocr.errors import UserError, first_line
from ocr.images import ImageRefused, image_size
from ocr.recognizers.vlm.adapter import layer_names, layers_of
from ocr.recognizers.vlm.base_model import Base
from ocr.recognizers.vlm.find import find_base
from ocr.recognizers.vlm.inputs import fitted_size
from trainers.config import TrainConfig
from trainers.families.splits import Splits
from trainers.families.vlm.samples import LEAST_SIDE_PX, Fitting

_LOOKED_AT = 2000  # number of samples whose lengths and sizes are summarised
_DTYPES = ("float32", "bfloat16", "float16")


@dataclass(frozen=True, slots=True)
class Row:
    """One check: its subject, the expected and the actual value, and whether they fit."""

    subject: str
    expected: str
    actual: str
    fits: bool

    def __str__(self) -> str:
        mark = "ok " if self.fits else "NOT"
        expected = "" if self.fits else f"  (expected: {self.expected})"
        return f"  {mark}  {self.subject:<24}{self.actual}{expected}"


def preflight(config: TrainConfig, splits: Splits) -> str:
    """Return the table of checks; UserError with the table where anything does not fit.

    The data are opened only where the base fits.
    """
    base = find_base(config.vlm)
    rows = list(_of_base(base, config))
    if all(row.fits for row in rows):
        rows += _of_data(config, base, splits.own_train)
    table = "\n".join([f"{base.name}: {base.folder}", *map(str, rows)])
    if wrong := [row for row in rows if not row.fits]:
        raise UserError(
            f"{len(wrong)} of {len(rows)} checks failed before training:\n{table}\n"
            "fix them, or train anyway with skip_preflight=true"
        )
    return table


def _of_base(base: Base, config: TrainConfig) -> Iterator[Row]:
    yield from _of_architecture(base)
    for key, token in base.architecture.special_tokens.items():
        given, known = base.config.get(key), base.tokenizer.convert_tokens_to_ids(token)
        yield Row(key, f"{known}, the tokenizer's {token}", str(given), given == known)
    yield from _of_sizes_inside(base)
    yield _of_dtype(base, config)
    yield from _of_processor(base)
    yield _of_template(base, config)
    yield from _of_adapter(base, config)


def _of_architecture(base: Base) -> Iterator[Row]:
    known = base.architecture.model_class
    name = (base.config.get("architectures") or ["none"])[0]
    kind = base.config["model_type"]
    yield Row("architecture", f"{known}, of model_type {kind}", name, name == known)


def _of_sizes_inside(base: Base) -> Iterator[Row]:
    """Check that image processor, image encoder, language model and tokenizer fit each other."""
    text, vision = (base.config.get(part, {}) for part in ("text_config", "vision_config"))
    patch, merge = base.preprocessor.get("patch_size"), base.preprocessor.get("merge_size")
    if base.architecture.layout == "whole":  # its processor names two sides, and does not merge
        patch, merge = patch["height"] if isinstance(patch, dict) else patch, base.merge
    for given, known, key, subject in (
        (patch, vision.get("patch_size"), "vision_config.patch_size", "patch size"),
        (merge, base.merge, "spatial_merge_size", "spatial merge"),
    ):
        expected = f"{known}, as {key} in config.json"
        yield Row(subject, expected, f"{given}", given == known and given is not None)
    encoder, hidden = vision.get("out_hidden_size"), text.get("hidden_size")
    if encoder is not None or base.architecture.layout == "patches":
        expected, actual = f"{hidden}, the language model's", f"{encoder} from the image encoder"
        yield Row("hidden size", expected, actual, encoder == hidden)
    size, tokens = text.get("vocab_size", 0), len(base.tokenizer)
    yield Row("vocabulary", f"at least the tokenizer's {tokens:,}", f"{size:,}", size >= tokens)


def _of_dtype(base: Base, config: TrainConfig) -> Row:
    text, whole = base.config.get("text_config", {}), base.config
    given = text.get("dtype") or whole.get("dtype") or whole.get("torch_dtype") or "none"
    dtype = str(given).removeprefix("torch.")
    expected, actual = "float32, bfloat16 or float16", f"{dtype}, trained in {config.vlm.dtype}"
    return Row("dtype", expected, actual, dtype in _DTYPES)


def _of_processor(base: Base) -> Iterator[Row]:
    settings = base.preprocessor
    images = str(
        settings.get("image_processor_type", settings.get("image_processor_class", "none"))
    )
    facts = base.architecture
    expected, fits = f"{facts.image_processor} or similar", images.startswith(facts.image_processor)
    yield Row("image processor", expected, f"{images}, done by Pillow here", fits)
    name = str(settings.get("processor_class", base.config.get("processor_class", "unnamed")))
    expected, fits = " or ".join(facts.processors), name in (*facts.processors, "unnamed")
    yield Row("processor", expected, name, fits)


def _of_template(base: Base, config: TrainConfig) -> Row:
    subject, expected = "chat template", "one image placeholder for one image"
    try:
        prompt = base.prompt(config.vlm)
    except UserError as problem:
        return Row(subject, expected, str(problem), False)
    except Exception as problem:  # noqa: BLE001  (a template is the model's own program)
        return Row(subject, expected, f"{type(problem).__name__}: {problem}", False)
    return Row(subject, expected, f"{prompt.length(1)} tokens around an image of one", True)


def _of_adapter(base: Base, config: TrainConfig) -> Iterator[Row]:
    """Check that each part of `lora.parts` has layers, in the model without weights."""
    from transformers import AutoConfig, AutoModelForImageTextToText

    try:
        with torch.device("meta"):
            settings = AutoConfig.from_pretrained(base.folder, trust_remote_code=False)
            model: Any = AutoModelForImageTextToText.from_config(settings)  # type: ignore[no-untyped-call]
    except (ValueError, TypeError, AttributeError) as problem:
        yield Row("network", "one that transformers can build", first_line(problem), False)
        return
    names = [name for name, _ in model.named_modules()]
    for part, pattern in layers_of(config.lora, base.architecture).items():
        matched = sum(bool(re.fullmatch(pattern, name)) for name in names)
        yield Row(f"lora.parts: {part}", "some layers", f"{matched} layers", matched > 0)
    if wanted := config.lora.target_modules:
        known = layer_names(names, config.lora, base.architecture)
        expected = f"some of {', '.join(sorted(known))}"
        yield Row("lora.target_modules", expected, ", ".join(wanted), set(wanted) <= known)


def _of_data(config: TrainConfig, base: Base, train: Dataset) -> Iterator[Row]:
    fitting, chosen = Fitting(config, base), range(0, len(train), -(-len(train) // _LOOKED_AT))
    lengths, refused = list[int](), 0
    for index in chosen:
        try:
            lengths.append(fitting.tokens(train, index))
        except ImageRefused:
            refused += 1
    spread = "none fits"
    if lengths:
        median = statistics.median(lengths)
        spread = f"median {median:,.0f}, longest {max(lengths):,} tokens"
    expected = f"at most {config.max_skipped:.1%} beyond {config.vlm.max_length:,}"
    actual = f"{spread}, {refused} of {len(chosen)} refused"
    yield Row("lengths", expected, actual, refused <= config.max_skipped * len(chosen))
    yield _of_sizes(config, base, train, chosen)


def _of_sizes(config: TrainConfig, base: Base, train: Dataset, chosen: Sequence[int]) -> Row:
    """Check that no page shrinks below what can be read."""
    sizes = [
        (train.ids[index], image_size(content))
        for index in chosen
        if (content := train.image_bytes(index))
    ]
    fitted = [
        (id, max(size), max(fitted_size(*size, config.images, base.patching))) for id, size in sizes
    ]
    tiny = [(id, before, after) for id, before, after in fitted if before >= LEAST_SIDE_PX > after]
    actual = "no image"
    if sides := [after for _, _, after in fitted]:
        actual = f"longer sides {min(sides)} to {max(sides)} px"
    if tiny:
        id, before, after = tiny[0]
        actual += f"; {len(tiny)} shrink below, such as {id}: {before} → {after} px"
    limit = "raise images.max_pixels, which is an area"
    expected = f"pages keep {LEAST_SIDE_PX} px or more; {limit}"
    return Row("image sizes", expected, actual, not tiny)
