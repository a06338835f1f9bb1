"""How images are disturbed on the device that trains; no torch here, so a typo is answered in under a second."""

from ocr.settings import Setting, Settings


class KorniaSettings(Settings):
    """How training images of a vision-language model are disturbed with kornia; each draw is keyed by (seed, epoch, sample id)."""

    strength: float = Setting(
        0.0,
        ge=0,
        le=2,
        on_resume="refuse",
        description="scales every range below; 0 leaves images as they are",
    )
    rotation_degrees: float = Setting(
        3.0,
        ge=0,
        le=15,
        on_resume="refuse",
        description="either way; less in images longer than four times their height",
    )
    scale: float = Setting(
        0.1,
        ge=0,
        lt=0.5,
        on_resume="refuse",
        description="how much smaller, as a share; larger by at most a third of it, so that no letter leaves the image",
    )
    brightness: float = Setting(
        0.2,
        ge=0,
        le=0.5,
        on_resume="refuse",
        description="lighter or darker, as a share of full contrast",
    )
    contrast: float = Setting(
        0.2, ge=0, lt=0.5, on_resume="refuse", description="more or less, as a share"
    )
    blur_px: float = Setting(
        0.8,
        ge=0,
        le=5,
        on_resume="refuse",
        description="largest Gaussian radius, in two images of five",
    )
    noise: float = Setting(
        0.03,
        ge=0,
        le=1,
        on_resume="refuse",
        description="largest standard deviation, as a share of full contrast",
    )
    elastic_px: float = Setting(
        1.0,
        ge=0,
        le=5,
        on_resume="refuse",
        description="largest standard deviation of the local shifts",
    )
