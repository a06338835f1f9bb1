"""Settings of the augmentation on the device that trains. No torch here."""

from ocr.settings import Setting, Settings


class KorniaSettings(Settings):
    """Augmentation with kornia of a vision-language model's training images.

    Each random number is keyed by (seed, epoch, sample id).
    """

    strength: float = Setting(
        0.0,
        ge=0,
        le=2,
        on_resume="refuse",
        description="Factor of every range of this group; 0 leaves images unchanged",
    )
    rotation_degrees: float = Setting(
        3.0,
        ge=0,
        le=15,
        on_resume="refuse",
        description="Largest rotation either way, in degrees; less in images longer than four "
        "times their height",
    )
    scale: float = Setting(
        0.1,
        ge=0,
        lt=0.5,
        on_resume="refuse",
        description="Largest loss of size, as a share; images grow by at most a third of it, so "
        "that no letter leaves the image",
    )
    brightness: float = Setting(
        0.2,
        ge=0,
        le=0.5,
        on_resume="refuse",
        description="Largest change of brightness either way, as a share of full contrast",
    )
    contrast: float = Setting(
        0.2,
        ge=0,
        lt=0.5,
        on_resume="refuse",
        description="Largest change of contrast either way, as a share",
    )
    blur_px: float = Setting(
        0.8,
        ge=0,
        le=5,
        on_resume="refuse",
        description="Largest Gaussian radius, in pixels; two images of five are blurred",
    )
    noise: float = Setting(
        0.03,
        ge=0,
        le=1,
        on_resume="refuse",
        description="Largest standard deviation of noise, as a share of full contrast",
    )
    elastic_px: float = Setting(
        1.0,
        ge=0,
        le=5,
        on_resume="refuse",
        description="Largest standard deviation of local shifts, in pixels",
    )
