"""The vision-language architectures that are known here: one table of facts, which all else asks.

docs/new_architecture.md says how one is added. Without torch, so that settings can ask too.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

from ocr.errors import UserError

Part = Literal["language", "vision", "merger"]
# How a model gets images. patches: those of one token beside each other; whole: images padded to
# one size, with their heights and widths, and tokens without types.
Layout = Literal["patches", "whole"]
_LANGUAGE = r"(?:.*\.)?language_model\.layers\.\d+\."
_ATTENTION, _GATED_MLP = r"self_attn\.(?:q|k|v|o)_proj", r"mlp\.(?:gate|up|down)_proj"
_QWEN_TOKENS = {
    "image_token_id": "<|image_pad|>",
    "vision_start_token_id": "<|vision_start|>",
    "vision_end_token_id": "<|vision_end|>",
}
_ROPE = {"rope_type": "default", "rope_theta": 10_000.0}
_QWEN_TEMPLATE = (
    "{% for message in messages %}<|im_start|>{{ message.role }}\n{% if message.content is "
    "string %}{{ message.content }}{% else %}"
    "{% for part in message.content %}{% if part.type == 'image' "
    "%}<|vision_start|><|image_pad|><|vision_end|>{% else %}{{ part.text }}{% endif %}"
    "{% endfor %}{% endif %}<|im_end|>\n{% endfor %}{% if add_generation_prompt "
    "%}<|im_start|>assistant\n{% endif %}"
)


@dataclass(frozen=True, slots=True)
class TinyModel:
    """What the tiny model of an architecture has beyond the sizes that all of them share.

    Classes are those of transformers; `tokens` are in the order of their ids.
    """

    config_class: str
    patch_px: int
    text: Mapping[str, Any]
    vision: Mapping[str, Any]
    mean: float = 1.0  # of its images, from 0 (black) to 1: paper becomes 0
    tokens: tuple[str, ...] = (
        *("<|endoftext|>", "<|im_start|>", "<|im_end|>", "<|vision_start|>", "<|vision_end|>"),
        *("<|image_pad|>", "<|video_pad|>"),
    )
    token_ids: Mapping[str, str] = field(  # of config.json, beyond the special tokens
        default_factory=lambda: {"video_token_id": "<|video_pad|>"}
    )
    padding: str = "<|endoftext|>"
    template: str = _QWEN_TEMPLATE
    start: Mapping[str, float] = field(default_factory=dict)  # ends of names → value of all weights


@dataclass(frozen=True, slots=True)
class Architecture:
    """The facts of one architecture, by which its models are trained and read.

    `targets` are expressions of the whole names of each part's linear layers; `special_tokens`
    maps keys of config.json to the tokenizer's words. `image_processor` is the beginning of a name,
    `processors` are all names that fit.
    """

    model_class: str
    processors: tuple[str, ...]
    image_processor: str
    targets: Mapping[Part, str]
    special_tokens: Mapping[str, str]
    end_of_answer: str
    tiny: TinyModel
    layout: Layout = "patches"
    template_options: Mapping[str, Any] = field(default_factory=dict)
    used_directly: str | None = None  # parameters that are used without a call of their layer


ARCHITECTURES: Mapping[str, Architecture] = {
    "qwen3_vl": Architecture(
        model_class="Qwen3VLForConditionalGeneration",
        processors=("Qwen3VLProcessor", "Qwen2_5_VLProcessor"),
        image_processor="Qwen2VLImageProcessor",
        targets={
            "language": rf"{_LANGUAGE}(?:{_ATTENTION}|{_GATED_MLP})",
            "vision": r"(?:.*\.)?visual\.blocks\.\d+\.(?:attn\.(?:qkv|proj)|mlp\.linear_fc[12])",
            "merger": (r"(?:.*\.)?visual\.(?:merger|deepstack_merger_list\.\d+)\.linear_fc[12]"),
        },
        special_tokens=_QWEN_TOKENS,
        end_of_answer="<|im_end|>",
        tiny=TinyModel(
            "Qwen3VLConfig",
            16,
            text={
                "rope_scaling": {
                    "rope_type": "default",
                    "mrope_section": [4, 6, 6],
                    "mrope_interleaved": True,
                }
            },
            vision={"deepstack_visual_indexes": [0], "num_position_embeddings": 256},
        ),
    ),
    "qwen2_5_vl": Architecture(
        model_class="Qwen2_5_VLForConditionalGeneration",
        processors=("Qwen2_5_VLProcessor", "Qwen3VLProcessor"),
        image_processor="Qwen2VLImageProcessor",
        targets={
            "language": rf"{_LANGUAGE}(?:{_ATTENTION}|{_GATED_MLP})",
            "vision": rf"(?:.*\.)?visual\.blocks\.\d+\.(?:attn\.(?:qkv|proj)|{_GATED_MLP})",
            "merger": r"(?:.*\.)?visual\.merger\.mlp\.[02]",
        },
        special_tokens=_QWEN_TOKENS,
        end_of_answer="<|im_end|>",
        tiny=TinyModel(
            "Qwen2_5_VLConfig",
            14,
            text={"rope_scaling": {"rope_type": "default", "mrope_section": [4, 6, 6]}},
            vision={"fullatt_block_indexes": [0, 1], "window_size": 112},
        ),
    ),
    # Three of four layers have no attention but a recurrent state (gated delta rule). Padding on
    # the left leaves the state at zero, as transformers masks it; on the right nothing sees it.
    "qwen3_5": Architecture(
        model_class="Qwen3_5ForConditionalGeneration",
        processors=("Qwen3VLProcessor",),
        image_processor="Qwen2VLImageProcessor",
        targets={
            "language": (
                rf"{_LANGUAGE}(?:{_ATTENTION}|linear_attn\.(?:in_proj_(?:qkv|z|b|a)|out_proj)|"
                rf"{_GATED_MLP})"
            ),
            "vision": r"(?:.*\.)?visual\.blocks\.\d+\.(?:attn\.(?:qkv|proj)|mlp\.linear_fc[12])",
            "merger": r"(?:.*\.)?visual\.merger\.linear_fc[12]",
        },
        special_tokens=_QWEN_TOKENS,
        end_of_answer="<|im_end|>",
        template_options={"enable_thinking": False},  # else the prompt ends inside <think>
        used_directly=r".*\.linear_attn\.conv1d\.weight",
        tiny=TinyModel(
            "Qwen3_5Config",
            16,
            text={
                "num_hidden_layers": 3,
                "layer_types": ["full_attention", "linear_attention", "full_attention"],
                "linear_num_key_heads": 2,
                "linear_num_value_heads": 4,
                "linear_key_head_dim": 32,
                "linear_value_head_dim": 32,
                "head_dim": 64,  # half of it turns, so positions have as many frequencies as above
                "rope_parameters": {
                    "rope_type": "default",
                    "rope_theta": 10_000.0,
                    "partial_rotary_factor": 0.5,
                    "mrope_section": [4, 6, 6],
                    "mrope_interleaved": True,
                },
            },
            vision={"num_position_embeddings": 256},
            # as transformers initialises them, the state forgets each token at the next one
            start={"linear_attn.dt_bias": -4.0, "linear_attn.out_proj.weight": 0.0},
        ),
    ),
    "glm_ocr": Architecture(
        model_class="GlmOcrForConditionalGeneration",
        processors=("Glm46VProcessor",),
        image_processor="Glm46VImageProcessor",
        targets={
            "language": rf"{_LANGUAGE}(?:{_ATTENTION}|mlp\.(?:gate_up|down)_proj)",
            "vision": rf"(?:.*\.)?visual\.blocks\.\d+\.(?:attn\.(?:qkv|proj)|{_GATED_MLP})",
            "merger": r"(?:.*\.)?visual\.merger\.(?:(?:gate|up|down)_)?proj",
        },
        special_tokens={
            "image_token_id": "<|image|>",
            "image_start_token_id": "<|begin_of_image|>",
            "image_end_token_id": "<|end_of_image|>",
        },
        end_of_answer="<|user|>",  # the next turn's first token: its template writes no other end
        tiny=TinyModel(
            "GlmOcrConfig",
            14,
            text={
                "rope_parameters": {
                    "rope_type": "default",
                    "rope_theta": 10_000.0,
                    "partial_rotary_factor": 1.0,
                    "mrope_section": [4, 6, 6],
                }
            },
            vision={"attention_bias": True},
            tokens=(
                *("<|endoftext|>", "[gMASK]", "<sop>", "<|user|>", "<|assistant|>"),
                *("<|begin_of_image|>", "<|end_of_image|>", "<|image|>"),
                *("<|begin_of_video|>", "<|end_of_video|>", "<|video|>"),
            ),
            token_ids={
                "video_token_id": "<|video|>",
                "video_start_token_id": "<|begin_of_video|>",
                "video_end_token_id": "<|end_of_video|>",
            },
            template=(
                "[gMASK]<sop>{% for message in messages %}<|user|>\n{% if message.content is "
                "string %}{{ message.content }}{% else %}{% for part in message.content %}"
                "{% if part.type == 'image' %}<|begin_of_image|><|image|><|end_of_image|>"
                "{% else %}{{ part.text }}{% endif %}{% endfor %}{% endif %}{% endfor %}"
                "{% if add_generation_prompt %}<|assistant|>\n{% endif %}"
            ),
        ),
    ),
    "lighton_ocr": Architecture(
        model_class="LightOnOcrForConditionalGeneration",
        processors=("LightOnOcrProcessor",),
        image_processor="PixtralImageProcessor",
        targets={
            "language": rf"{_LANGUAGE}(?:{_ATTENTION}|{_GATED_MLP})",
            "vision": (
                r"(?:.*\.)?vision_encoder\.transformer\.layers\.\d+\."
                r"(?:attention\.(?:q|k|v|o)_proj|feed_forward\.(?:gate|up|down)_proj)"
            ),
            "merger": r"(?:.*\.)?vision_projection\.(?:patch_merger\.merging_layer|linear_[12])",
        },
        special_tokens={"image_token_id": "<|image_pad|>"},
        end_of_answer="<|im_end|>",
        layout="whole",
        tiny=TinyModel(
            "LightOnOcrConfig",
            14,
            text={"model_type": "qwen3", "head_dim": 64, "rope_parameters": _ROPE},
            vision={
                "model_type": "pixtral",
                "num_hidden_layers": 2,
                "num_attention_heads": 4,
                "head_dim": 32,
                "image_size": 224,
                "rope_parameters": _ROPE,
            },
            mean=0.9,  # patches are scaled to one size: noise of a paper of 0 would be as ink
            token_ids={},
            template=_QWEN_TEMPLATE.replace(
                "<|vision_start|><|image_pad|><|vision_end|>", "<|image_pad|>"
            ),
        ),
    ),
}


def architecture_of(model_type: object, where: str) -> Architecture:
    """Return the facts of a `model_type`; UserError with the list where it is unknown."""
    if isinstance(model_type, str) and model_type in ARCHITECTURES:
        return ARCHITECTURES[model_type]
    raise UserError(f"{where}: {unknown(model_type)}")


def unknown(model_type: object) -> str:
    """Return what is said of an architecture that is not in the table."""
    return (
        f"unknown architecture {model_type!r}; known: {', '.join(ARCHITECTURES)}; "
        "docs/new_architecture.md says how one is added"
    )
