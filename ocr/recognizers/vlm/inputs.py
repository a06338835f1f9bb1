"""The input of a vision-language model: the prompt's tokens and an image's patches.

Training, evaluation and serving share it, with Pillow alone. torchvision resizes differently, and
where its build does not fit torch even transformers' processors cannot be imported.
Legend: B batch, T tokens, C channels, H and W in pixels, N patches, P values of a patch.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor
from torch.nn import functional as F

from ocr.errors import UserError
from ocr.images import Pixels
from ocr.recognizers.vlm.architectures import Architecture, Layout
from ocr.recognizers.vlm.settings import ImageSettings


@dataclass(frozen=True, slots=True)
class Patching:
    """The way an image becomes patches, from the processor's config (preprocessor_config.json)."""

    patch_px: int
    merge: int
    frames: int
    mean: tuple[float, ...]
    std: tuple[float, ...]
    layout: Layout = "patches"

    @property
    def factor(self) -> int:
        """The factor of width and height in pixels; a square of it is one token."""
        return self.patch_px * self.merge

    @property
    def token_pixels(self) -> int:
        """The pixels of one image token."""
        return self.factor**2

    def tokens(self, width: int, height: int) -> int:
        """Return the image tokens of an image of this size, as `fitted_size` gives it."""
        return width * height // self.token_pixels


def fitted_size(
    width: int,
    height: int,
    images: ImageSettings,
    patching: Patching,
    max_pixels: int | None = None,
) -> tuple[int, int]:
    """Return the width and height that an image is resized to.

    The longer side is scaled to fit `max_side_px`; then both sides become multiples of the factor,
    with the area within the limits, as in `smart_resize` of transformers' Qwen2-VL processor.
    `max_pixels` lowers the limit for one image.
    """
    factor, most = patching.factor, min(images.max_pixels, max_pixels or images.max_pixels)
    scale = min(1.0, images.max_side_px / max(width, height))
    width, height = max(1, round(width * scale)), max(1, round(height * scale))
    wide, high = (
        max(factor, round(width / factor) * factor),
        max(factor, round(height / factor) * factor),
    )
    if wide * high > most:
        beta = math.sqrt(width * height / most)
        wide, high = (
            max(factor, math.floor(side / beta / factor) * factor) for side in (width, height)
        )
    elif wide * high < images.min_pixels:
        beta = math.sqrt(images.min_pixels / (width * height))
        wide, high = (math.ceil(side * beta / factor) * factor for side in (width, height))
    return wide, high


def resized(pixels: Pixels, size: tuple[int, int]) -> Tensor:
    """Return an RGB image [H, W, 3] at `size` (width, height) as uint8 [3, H, W]."""
    image = Image.fromarray(pixels)
    image = image if image.size == size else image.resize(size, Image.Resampling.BICUBIC)
    return torch.from_numpy(np.array(image)).permute(2, 0, 1).contiguous()


def _normalised(image_CHW: Tensor, patching: Patching) -> Tensor:
    mean, std = (
        torch.tensor(values, dtype=torch.float32, device=image_CHW.device)[:, None, None]
        for values in (patching.mean, patching.std)
    )
    return (image_CHW.float() / 255 - mean) / std


def patches(image_CHW: Tensor, patching: Patching) -> Tensor:
    """Return the patches [N, P] of an image, 0–255, normalised; a token's are neighbours."""
    image_CHW = _normalised(image_CHW, patching)
    channels, height, width = image_CHW.shape
    side, merge = patching.patch_px, patching.merge
    down, across = height // side // merge, width // side // merge
    cut = image_CHW.reshape(channels, down, merge, side, across, merge, side).permute(
        1, 4, 2, 5, 0, 3, 6
    )
    frames = cut.unsqueeze(5).expand(*cut.shape[:5], patching.frames, side, side)
    return frames.reshape(down * across * merge * merge, channels * patching.frames * side * side)


def grid(image_CHW: Tensor, patching: Patching) -> list[int]:
    """Return the frames, rows and columns of patches."""
    return [1, image_CHW.shape[1] // patching.patch_px, image_CHW.shape[2] // patching.patch_px]


def vision_inputs(images: Sequence[Tensor], patching: Patching) -> dict[str, Tensor]:
    """Return a model's arguments for the images of a batch, each [3, H, W]; empty for no image.

    They are the patches of all images, [N, P], and each image's grid, [B, 3]; of whole images
    the images, [B, 3, H, W], filled up on the right and below, and each one's height and width.
    """
    if not images:
        return {}
    if patching.layout == "whole":
        sizes = torch.tensor([image.shape[1:] for image in images], device=images[0].device)
        high, wide = sizes.amax(0).tolist()
        filled = [
            F.pad(
                _normalised(image, patching), (0, wide - image.shape[2], 0, high - image.shape[1])
            )
            for image in images
        ]
        return {"pixel_values": torch.stack(filled), "image_sizes": sizes}
    grids = torch.tensor([grid(image, patching) for image in images], device=images[0].device)
    return {
        "pixel_values": torch.cat([patches(image, patching) for image in images]),
        "image_grid_thw": grids,
    }


def model_inputs(
    ids_BT: Tensor, images: Sequence[Tensor], image_token: int, patching: Patching
) -> dict[str, Tensor]:
    """Return a model's arguments for a batch: tokens, which of them are of images, and images.

    Models of whole images know their tokens by the id alone.
    """
    types = (ids_BT == image_token).int()
    return {
        "input_ids": ids_BT,
        **({"mm_token_type_ids": types} if patching.layout == "patches" else {}),
        **vision_inputs(images, patching),
    }


@dataclass(frozen=True, slots=True)
class Prompt:
    """Token ids around an image, and of a question without one."""

    before: tuple[int, ...]
    after: tuple[int, ...]
    without_image: tuple[int, ...]
    image_token: int
    end_token: int
    padding_token: int

    @classmethod
    def of(
        cls,
        tokenizer: Any,
        architecture: Architecture,
        instruction: str,
        instruction_first: bool,
        image_token: int,
    ) -> "Prompt":
        """Return the prompt by the tokenizer's chat template.

        UserError where the template writes no image placeholder, or more than one.
        """
        question, shown = {"type": "text", "text": instruction}, {"type": "image"}
        options = architecture.template_options
        with_image = _templated(
            tokenizer, [question, shown] if instruction_first else [shown, question], options
        )
        if with_image.count(image_token) != 1:
            raise UserError(
                f"{tokenizer.name_or_path}: its chat template writes "
                f"{with_image.count(image_token)} image placeholders for one image"
            )
        position = with_image.index(image_token)
        end = _end_token(tokenizer, architecture.end_of_answer)
        padding = tokenizer.pad_token_id if tokenizer.pad_token_id is not None else end
        return cls(
            tuple(with_image[:position]),
            tuple(with_image[position + 1 :]),
            tuple(_templated(tokenizer, [question], options)),
            image_token,
            end,
            padding,
        )

    def ids(self, image_tokens: int) -> list[int]:
        """Return the prompt of an image of so many tokens; 0: of a question without one."""
        return (
            [*self.before, *[self.image_token] * image_tokens, *self.after]
            if image_tokens
            else list(self.without_image)
        )

    def length(self, image_tokens: int) -> int:
        """Return the number of tokens of `ids`."""
        return (
            len(self.before) + image_tokens + len(self.after)
            if image_tokens
            else len(self.without_image)
        )


def _templated(
    tokenizer: Any, content: list[dict[str, str]], options: Mapping[str, Any]
) -> list[int]:
    text = tokenizer.apply_chat_template(
        [{"role": "user", "content": content}],
        add_generation_prompt=True,
        tokenize=False,
        **options,
    )
    return list(tokenizer.encode(text, add_special_tokens=False))


def _end_token(tokenizer: Any, word: str) -> int:
    """Return the id of the token that ends an answer; the tokenizer's own end where it lacks it."""
    id = tokenizer.convert_tokens_to_ids(word)
    known = id is not None and tokenizer.convert_ids_to_tokens(id) == word
    return int(id if known else tokenizer.eos_token_id)


def padded(rows: Sequence[Sequence[int]], filler: int, left: bool) -> Tensor:
    """Return the rows as [B, T], filled up on one side."""
    longest = max(len(row) for row in rows)
    return torch.tensor(
        [
            [filler] * (longest - len(row)) + list(row)
            if left
            else list(row) + [filler] * (longest - len(row))
            for row in rows
        ]
    )
