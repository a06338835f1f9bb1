"""Reading with a vision-language model: images of similar size in one batch, padded on the left.

Legend: B images, T tokens, V vocabulary.
"""

from collections.abc import Iterator, Sequence
from typing import Any, Literal

import torch
from torch import Tensor, nn
from transformers import GenerationConfig, LogitsProcessor, StoppingCriteria

from ocr.images import Pixels
from ocr.keyed import seed_of
from ocr.recognizers.recognizer import PixelReader, like_sizes
from ocr.recognizers.vlm.base_model import Base
from ocr.recognizers.vlm.inputs import fitted_size, model_inputs, padded, resized
from ocr.recognizers.vlm.settings import BaseModelSettings, GenerationSettings, ImageSettings
from ocr.sample import Reading
from ocr.text import normalise

LONGEST_PERIOD, LEAST_REPEATED, LEAST_TIMES = 32, 32, 4  # tokens


class PromptedReader(PixelReader):
    """The part that every engine shares: the prompt, and images at the size that the model gets."""

    image_mode: Literal["L", "RGB"] = "RGB"
    reads_pages = True

    def __init__(
        self,
        base: Base,
        settings: BaseModelSettings,
        images: ImageSettings,
        generation: GenerationSettings,
        name: str,
    ) -> None:
        self.base, self.settings, self.images = base, settings, images
        self.generation, self.name = generation, name
        self.prompt = base.prompt(settings)

    def prepared(self, image: Pixels, max_tokens: int | None = None) -> Tensor:
        """Return the image as the model's input, uint8 [3, H, W], leaving room for the prompt.

        `max_tokens` lowers the limit of image tokens.
        """
        patching = self.base.patching
        room = min(
            self.settings.max_length - self.prompt.length(1), max_tokens or self.settings.max_length
        )
        size = fitted_size(
            image.shape[1],
            image.shape[0],
            self.images,
            patching,
            max(1, room) * patching.token_pixels,
        )
        return resized(image, size)


class VlmRecognizer(PromptedReader):
    """A base model with its adapter, if any; also the live one inside training.

    Reading leaves the model in the mode it was in.
    """

    def __init__(
        self,
        model: nn.Module,
        base: Base,
        settings: BaseModelSettings,
        images: ImageSettings,
        generation: GenerationSettings,
        name: str = "vlm",
    ) -> None:
        super().__init__(base, settings, images, generation, name)
        self.model = model

    def read_pixels(self, images: Sequence[Pixels]) -> list[Reading]:
        """Return one Reading per RGB image; confidence is the product of token probabilities."""
        prepared = [self.prepared(image) for image in images]
        sizes = [self.base.patching.tokens(image.shape[2], image.shape[1]) for image in prepared]
        readings: dict[int, Reading] = {}
        was_training = self.model.training
        self.model.eval()
        for chosen in self._batches(sizes):
            readings.update(
                zip(chosen, self._generate([prepared[index] for index in chosen]), strict=True)
            )
        self.model.train(was_training)
        return [readings[index] for index in range(len(prepared))]

    def _batches(self, sizes: Sequence[int]) -> Iterator[list[int]]:
        """Yield batches of indices of images of similar size in tokens.

        A batch has `batch_size` images, fewer where padding would exceed `batch_tokens` in all.
        """
        # random numbers belong to one image
        most = self.generation.batch_size if not self.generation.temperature else 1
        tokens = self.generation.batch_tokens
        return like_sizes(
            sizes,
            lambda batch, index: len(batch) < most and (len(batch) + 1) * sizes[index] <= tokens,
        )

    @torch.no_grad()
    def _generate(self, images: Sequence[Tensor]) -> list[Reading]:
        device = next(self.model.parameters()).device
        patching, prompt = self.base.patching, self.prompt
        rows = [prompt.ids(patching.tokens(image.shape[2], image.shape[1])) for image in images]
        ids_BT = padded(rows, prompt.padding_token, left=True).to(device)
        seen_BT = padded([[1] * len(row) for row in rows], 0, left=True).to(device)
        confidence = _Confidence(len(rows), prompt.end_token, device)
        stop = [_Loop()] if self.generation.stop_on_repetition else []
        generate: Any = self.model.generate
        with torch.random.fork_rng():
            torch.manual_seed(seed_of(images[0].numpy().tobytes()))
            tokens_BT = generate(
                attention_mask=seen_BT,
                generation_config=self._generation_config(),
                logits_processor=[confidence],
                stopping_criteria=stop,
                # weights are divided among workers: all take the same number of steps
                synced_gpus=hasattr(next(self.model.parameters()), "ds_id"),
                **model_inputs(
                    ids_BT, [image.to(device) for image in images], prompt.image_token, patching
                ),
            )[:, ids_BT.shape[1] :]
        confidence.add(tokens_BT[:, -1])
        texts = self.base.tokenizer.batch_decode(tokens_BT, skip_special_tokens=True)
        written_B = (tokens_BT != prompt.padding_token).sum(1).tolist()
        return [
            Reading(normalise(text.strip()), float(p), (len(row), written))
            for text, p, row, written in zip(
                texts, confidence.log_p_B.exp(), rows, written_B, strict=True
            )
        ]

    def _generation_config(self) -> GenerationConfig:
        ends: dict[str, Any] = {
            "eos_token_id": self.prompt.end_token,
            "pad_token_id": self.prompt.padding_token,
        }
        sampling: dict[str, Any] = (
            {"do_sample": True, "temperature": self.generation.temperature}
            if self.generation.temperature
            else {"do_sample": False}
        )
        return GenerationConfig(max_new_tokens=self.generation.max_new_tokens, **ends, **sampling)  # type: ignore[no-untyped-call]


class _Confidence(LogitsProcessor):
    """The sum of the log probabilities of each row's tokens up to its end.

    Only one step's scores are kept, whatever the length.
    """

    def __init__(self, rows: int, end_token: int, device: torch.device) -> None:
        self.log_p_B = torch.zeros(rows, device=device)
        self._open_B = torch.ones(rows, dtype=torch.bool, device=device)
        self._scores_BV: Tensor | None = None
        self._end = end_token

    def __call__(self, input_ids: Tensor, scores: Tensor) -> Tensor:
        """Count the previous token before each new one."""
        if self._scores_BV is not None:
            self.add(input_ids[:, -1])
        self._scores_BV = scores
        return scores

    def add(self, tokens_B: Tensor) -> None:
        """Count the tokens that were chosen by the last scores."""
        assert self._scores_BV is not None
        log_p_B = self._scores_BV.float().log_softmax(1).gather(1, tokens_B[:, None])[:, 0]
        self.log_p_B += torch.where(self._open_B, log_p_B, 0.0)
        self._open_B &= tokens_B != self._end


class _Loop(StoppingCriteria):
    """Stops rows whose last tokens repeat a piece of up to 32 tokens over and over."""

    def __call__(self, input_ids: Tensor, scores: Any, **_: Any) -> Tensor:  # noqa: ARG002  (transformers gives both)
        """Return [B], whether each row is done; checked at every eighth token."""
        looping = torch.zeros(input_ids.shape[0], dtype=torch.bool, device=input_ids.device)
        if input_ids.shape[1] % 8:
            return looping
        for period in range(1, LONGEST_PERIOD + 1):
            length = max(LEAST_TIMES * period, LEAST_REPEATED)
            if length <= input_ids.shape[1]:
                tail = input_ids[:, -length:]
                looping |= (tail[:, period:] == tail[:, :-period]).all(1)
        return looping
