"""Augmentation with kornia: keyed, of the same size, on the page's paper, and still readable."""

from contextlib import nullcontext

import numpy as np
import pytest
import torch
from PIL import Image, ImageDraw, ImageFont
from torch import Tensor

from ocr.dataset.read import Dataset
from ocr.images import open_image
from trainers.config.kornia import KorniaSettings
from trainers.families.vlm.augment import disturb

OPERATIONS = (
    "rotation_degrees",
    "scale",
    "brightness",
    "contrast",
    "blur_px",
    "noise",
    "elastic_px",
)
NOTHING = dict.fromkeys(OPERATIONS, 0.0)
FULL = KorniaSettings(strength=1)
PAPER = (231, 214, 180)


def alone(**given: float) -> KorniaSettings:
    """Strength 1 with the operations given and no other."""
    return KorniaSettings.model_validate({**NOTHING, "strength": 1.0, **given})


@pytest.fixture(scope="module")
def words() -> list[Tensor]:
    data = Dataset.open("odia_few_words", "train")
    return [
        torch.from_numpy(open_image(data.image_bytes(index), "RGB").copy()).permute(2, 0, 1)
        for index in range(0, 60, 10)
    ]


def written(height: int, width: int) -> Tensor:
    """Dark blue writing on yellowish paper, away from its corners."""
    image = Image.new("RGB", (width, height), PAPER)
    ImageDraw.Draw(image).text(
        (width // 4, height // 4),
        "lipi " * (width // height // 2),
        font=ImageFont.load_default(max(4, height // 2)),
        fill=(20, 20, 70),
    )
    return torch.from_numpy(np.array(image)).permute(2, 0, 1)


def ink(image: Tensor) -> float:
    """The mean distance from the colour that most of the border has, in grey levels."""
    values = image.float()
    border = (
        torch.cat([values[:, 0], values[:, -1], values[:, :, 0], values[:, :, -1]], dim=1)
        .median(dim=1)
        .values
    )
    return float((values - border[:, None, None]).abs().mean())


def test_the_same_key_gives_the_same_bits_and_another_key_another_image(
    words: list[Tensor],
) -> None:
    once = disturb(words[0], FULL, 42, 0, "word-1")
    assert torch.equal(once, disturb(words[0], FULL, 42, 0, "word-1"))
    for key in [(43, 0, "word-1"), (42, 1, "word-1"), (42, 0, "word-2")]:
        assert (once - disturb(words[0], FULL, *key)).abs().max() > 5


def test_neither_order_nor_the_other_images_change_an_image(words: list[Tensor]) -> None:
    forth = {index: disturb(image, FULL, 7, index) for index, image in enumerate(words)}
    torch.rand(5)
    back = {index: disturb(words[index], FULL, 7, index) for index in reversed(range(len(words)))}
    assert all(torch.equal(forth[index], back[index]) for index in forth)


def test_torchs_own_generator_is_neither_used_nor_moved(words: list[Tensor]) -> None:
    torch.manual_seed(1)
    before = torch.get_rng_state()
    once = [disturb(words[0], FULL, index) for index in range(5)]
    assert torch.equal(torch.get_rng_state(), before)
    torch.manual_seed(2)
    assert all(
        torch.equal(image, disturb(words[0], FULL, index)) for index, image in enumerate(once)
    )


def test_no_strength_leaves_an_image_as_it_is_and_is_the_default(words: list[Tensor]) -> None:
    for image in words:
        assert torch.equal(disturb(image, KorniaSettings(), 1), image.float())
    unmoved = disturb(words[0], alone(), 1)
    torch.testing.assert_close(unmoved, words[0].float(), rtol=0, atol=1e-3)


def test_the_image_given_is_not_written_to(words: list[Tensor]) -> None:
    copy = words[0].clone()
    disturb(words[0], KorniaSettings(), 1).zero_()
    disturb(words[0], FULL, 1).zero_()
    assert torch.equal(words[0], copy)


@pytest.mark.parametrize("strength", [0.0, 1.0, 2.0])
@pytest.mark.parametrize(
    "size", [(64, 256), (33, 71), (8, 8), (16, 600), (600, 16), (1, 1)], ids=str
)
def test_size_and_range_stay_whatever_the_size(size: tuple[int, int], strength: float) -> None:
    image = written(*size)
    for key in range(6):
        out = disturb(image, KorniaSettings(strength=strength), key)
        assert (
            out.shape == image.shape and out.dtype == torch.float32 and out.device == image.device
        )
        assert out.isfinite().all() and out.min() >= 0 and out.max() <= 255


def test_the_widest_settings_allowed_are_no_error() -> None:
    widest = KorniaSettings(
        strength=2,
        rotation_degrees=15,
        scale=0.49,
        brightness=0.5,
        contrast=0.49,
        blur_px=5,
        noise=1,
        elastic_px=5,
    )
    for size in [(64, 256), (8, 8), (16, 600)]:
        assert all(disturb(written(*size), widest, key).isfinite().all() for key in range(6))


def test_what_rotation_scale_elastic_and_blur_bring_in_from_outside_is_paper() -> None:
    image, paper = written(64, 256), torch.tensor(PAPER)
    settings = alone(rotation_degrees=15, scale=0.3, blur_px=3, elastic_px=3)
    for key in range(20):
        out = disturb(image, settings, key)
        corners = out[:, [0, 0, -1, -1], [0, -1, 0, -1]]
        assert (corners - paper[:, None]).abs().max() < 3
    assert ink(out) > 2  # it is not all paper


def test_the_ends_of_a_long_line_stay_in_the_image() -> None:
    image = torch.full((3, 16, 600), 255, dtype=torch.uint8)
    image[:, 7:9, 4:-4] = 0
    for key in range(20):
        assert disturb(image, alone(rotation_degrees=3), key).amin(dim=(0, 1))[8:-8].max() < 128


def test_writing_keeps_its_ink_and_so_stays_readable(words: list[Tensor]) -> None:
    for index, image in enumerate(words):
        ratios = [ink(disturb(image, FULL, index, epoch)) / ink(image) for epoch in range(20)]
        assert min(ratios) > 0.45 and max(ratios) < 1.5
        assert 0.75 < sum(ratios) / len(ratios) < 1.1


@pytest.mark.parametrize("name", OPERATIONS)
def test_each_operation_alone_changes_the_image(name: str) -> None:
    image = written(64, 256)
    only = alone(**{name: getattr(FULL, name)})
    changed = sum(float((disturb(image, only, key) - image).abs().max()) > 2 for key in range(40))
    assert changed > 25 if name != "blur_px" else 5 < changed < 20


def test_twice_the_strength_disturbs_more(words: list[Tensor]) -> None:
    def difference(strength: float) -> float:
        return sum(
            float(
                (disturb(words[0], KorniaSettings(strength=strength), key) - words[0]).abs().mean()
            )
            for key in range(12)
        )

    assert difference(0.25) < difference(0.5) < difference(1) < difference(2)


def test_a_grey_page_stays_grey() -> None:
    page = written(40, 90)[1].expand(3, -1, -1)
    for key in range(6):
        out = disturb(page, FULL, key)
        torch.testing.assert_close(out, out[:1].expand_as(out), rtol=0, atol=1e-3)


def test_mixed_precision_around_it_changes_nothing(words: list[Tensor]) -> None:
    outside = [disturb(words[0], FULL, key) for key in range(6)]
    with torch.autocast("cpu", torch.bfloat16):
        assert all(
            torch.equal(disturb(words[0], FULL, key), image) for key, image in enumerate(outside)
        )


def test_everything_is_computed_where_the_image_is(monkeypatch: pytest.MonkeyPatch) -> None:
    """The meta device has no values: a copy to the CPU, or a field left there, raises an error."""
    monkeypatch.setattr(
        torch, "autocast", lambda *_, **__: nullcontext()
    )  # it knows no meta device
    for key in range(6):
        assert (
            disturb(torch.zeros(3, 40, 90, dtype=torch.uint8, device="meta"), FULL, key).device.type
            == "meta"
        )


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
def test_a_gpu_gives_the_same_image_to_rounding(words: list[Tensor]) -> None:
    before = torch.cuda.get_rng_state()
    for key in range(12):
        out = disturb(words[0].cuda(), FULL, key)
        torch.testing.assert_close(out.cpu(), disturb(words[0], FULL, key), rtol=0, atol=1.0)
        assert torch.equal(out, disturb(words[0].cuda(), FULL, key))
    assert torch.equal(torch.cuda.get_rng_state(), before)
