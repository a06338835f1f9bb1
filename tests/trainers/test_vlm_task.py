"""Batches and losses of the vision-language task: exact masks, whole images, little padding."""

from pathlib import Path
from typing import Any

import pytest
import torch

from ocr.dataset.read import Dataset
from ocr.recognizers.vlm.inputs import model_inputs
from tests.support.tiny import tiny_task, tiny_vlm_config
from trainers.families.task import EvaluationSums
from trainers.families.vlm.task import VlmTask
from trainers.loop.batches import micro_batches_of
from trainers.loop.run_state import plan_of

PLAIN: dict[str, Any] = {
    "loss": {
        "name": "cross_entropy",
        "focal_gamma": 0.0,
        "focal_alpha": 1.0,
        "label_smoothing": 0.0,
        "confusion_weight": 0.0,
    },
    "kornia": {"strength": 0.0},
    "lora": {"rank": 8, "dropout": 0.0, "parts": ["language", "vision", "merger"]},
}


@pytest.fixture(scope="module")
def task(tmp_path_factory: pytest.TempPathFactory) -> VlmTask:
    torch.set_num_threads(1)
    return tiny_task(tiny_vlm_config(tmp_path_factory.mktemp("task"), **PLAIN))


def test_the_unmasked_labels_are_the_transcription_and_its_end(task: VlmTask) -> None:
    micro_batch = micro_batches_of(plan_of(task.config, task.widths), 0, 0, 1)[0]
    batch = task.batch(micro_batch, 0)
    rows = zip(batch.ids_BT, batch.answers_BT, micro_batch.samples, strict=True)
    for row, answers, index in rows:
        assert task.base.tokenizer.decode(row[answers]) == task.train.texts[index] + "<|im_end|>"
        assert int((row == task.fitting.prompt.image_token).sum()) > 0


def test_image_tokens_are_as_many_as_the_image_has_patches(task: VlmTask) -> None:
    batch = task.batch(micro_batches_of(plan_of(task.config, task.widths), 1, 0, 1)[0], 0)
    counted = (batch.ids_BT == task.fitting.prompt.image_token).sum(1).tolist()
    assert counted == [
        task.base.patching.tokens(image.shape[2], image.shape[1]) for image in batch.images
    ]


def test_a_text_without_an_image_learns_beside_images(task: VlmTask) -> None:
    answer = task.fitting.answer("ଓଡ଼ିଆ")
    shown = task._sample(task.train, 0)
    mixed, alone = task._collate([(None, answer), shown], None), task._collate([shown], None)
    losses, single = task.losses(mixed, 1.0), task.losses(alone, 1.0)
    assert torch.allclose(losses.sums_B[1], single.sums_B[0], atol=1e-4)
    assert losses.weights_B.tolist() == [len(answer), float(single.weights_B[0])]
    text_only = task.losses(task._collate([(None, answer)], None), 1.0)
    text_only.sums_B.sum().backward()
    assert torch.allclose(text_only.sums_B[0], losses.sums_B[0], atol=1e-4)
    task.network.zero_grad()


def test_a_samples_loss_is_the_models_own_over_its_answer(task: VlmTask) -> None:
    batch = task._collate([task._sample(task.train, index) for index in range(3)], None)
    losses = task.losses(batch, 1.0)
    labels = torch.where(batch.answers_BT, batch.ids_BT, -100)
    image_token, patching = task.fitting.prompt.image_token, task.base.patching
    inputs = model_inputs(batch.ids_BT, batch.images, image_token, patching)
    theirs = task.network.model(labels=labels, use_cache=False, **inputs).loss
    assert torch.allclose(losses.sums_B.sum() / losses.weights_B.sum(), theirs, atol=1e-5)


def test_padding_stays_under_a_tenth_of_the_tokens(tmp_path: Path) -> None:
    task = tiny_task(
        tiny_vlm_config(
            tmp_path,
            data={"train": "odia_words", "max_train_samples": 1000, "max_validation_samples": 6},
            **PLAIN,
        )
    )
    plan = plan_of(
        task.config.model_copy(
            update={
                "train": task.config.train.model_copy(
                    update={"global_batch_size": 32, "micro_batch_size": 8}
                )
            }
        ),
        task.widths,
    )
    tokens = padded = 0
    for step in range(plan.steps_per_epoch):
        for micro_batch in plan.step(step):
            sizes = [task.widths[index] for index in micro_batch]
            tokens, padded = tokens + sum(sizes), padded + max(sizes) * len(sizes)
    assert 1 - tokens / padded < 0.1


def test_tokens_counted_before_training_are_those_of_the_batch(task: VlmTask) -> None:
    for index in (0, 7, 20):
        image, answer = task._sample(task.train, index)
        assert image is not None
        tokens = task.base.patching.tokens(image.shape[2], image.shape[1])
        assert task.fitting.prompt.length(tokens) + len(answer) == task.widths[index]


def test_evaluating_in_parts_sums_to_the_whole(task: VlmTask) -> None:
    whole = task.evaluate(task.validation)
    parts = [task.evaluate(task.validation[rank::3]) for rank in range(3)]
    summed = EvaluationSums.from_vector(
        [sum(values) for values in zip(*(part.as_vector() for part in parts), strict=True)]
    )
    assert summed.counts == whole.counts
    assert summed.teacher_forced == whole.teacher_forced
    assert summed.loss_sum == pytest.approx(whole.loss_sum, rel=1e-5)
    assert whole.counts.samples == len(task.read_indices) == 4
    assert whole.teacher_forced is not None
    assert whole.teacher_forced.samples == len(task.validation) == 6


def test_the_generated_subset_is_always_the_same(task: VlmTask, tmp_path: Path) -> None:
    again = tiny_task(tiny_vlm_config(tmp_path, **PLAIN))
    assert again.read_indices == task.read_indices
    assert set(task.read_indices) <= set(task.validation)


def test_the_memory_of_logits_does_not_grow_with_the_prompt(
    task: VlmTask, monkeypatch: pytest.MonkeyPatch
) -> None:
    from trainers.families.vlm import model

    asked: list[int] = []
    original = model.token_losses
    monkeypatch.setattr(
        model,
        "token_losses",
        lambda hidden, *rest: asked.append(len(hidden)) or original(hidden, *rest),
    )
    batch = task._collate([task._sample(task.train, index) for index in range(3)], None)
    task.losses(batch, 1.0)
    assert asked == [int(batch.answers_BT.sum())]
    assert asked[0] < batch.ids_BT.numel() / 2


def test_the_embedded_few_words_are_not_those_that_the_base_knows() -> None:
    learnt, known = (
        set(Dataset.open(name, "train").texts) for name in ("odia_few_words", "odia_few_words_base")
    )
    assert not learnt & known
