"""Every setting of the endpoint. No torch, no ray here."""

import ipaddress

import pydantic

from ocr.limits import ImageLimits
from ocr.settings import Setting, Settings

_IMAGES = ImageLimits()


class LimitSettings(Settings):
    """What is refused before any work is done for it; Ray Serve by itself has no such limits."""

    max_body_bytes: int = Setting(
        20_000_000, ge=1, on_resume="free", description="of a request, counted while it is read"
    )
    max_images: int = Setting(64, ge=1, on_resume="free", description="in one request")
    max_pages: int = Setting(
        20, ge=1, on_resume="free", description="of PDF and TIFF files, in one request (level=page)"
    )
    max_lines: int = Setting(
        1000, ge=1, on_resume="free", description="that are looked for on a page"
    )
    max_pixels: int = Setting(
        _IMAGES.max_pixels, ge=1, on_resume="free", description="of an image, from its header"
    )
    max_side_px: int = Setting(
        _IMAGES.max_side_px, ge=1, on_resume="free", description="of an image, from its header"
    )
    max_ongoing_requests: int = Setting(
        32, ge=1, on_resume="free", description="that a replica is meant to work at"
    )
    max_queued_requests: int = Setting(
        64,
        ge=0,
        on_resume="free",
        description="that wait in a replica besides; more are answered 503 with Retry-After",
    )
    request_timeout_s: float = Setting(
        30.0,
        gt=0,
        on_resume="free",
        description="from a request's first byte to its answer, else 504 (408 where its body is what is slow)",
    )

    @property
    def images(self) -> ImageLimits:
        """As `ocr.images.open_image` takes them."""
        return ImageLimits(max_pixels=self.max_pixels, max_side_px=self.max_side_px)


class AutoscalingSettings(Settings):
    """How many replicas there are."""

    min_replicas: int = Setting(
        1,
        ge=1,
        on_resume="free",
        description="always there; 2 survive the death of one without a pause",
    )
    max_replicas: int = Setting(2, ge=1, on_resume="free", description="under load")
    target_ongoing_requests: float = Setting(
        4.0, gt=0, on_resume="free", description="of a replica: with more, replicas are added"
    )
    upscale_delay_s: float = Setting(
        5.0, ge=0, on_resume="free", description="that more is needed before a replica is added"
    )
    downscale_delay_s: float = Setting(
        120.0, ge=0, on_resume="free", description="that less is needed before one is taken away"
    )

    @pydantic.model_validator(mode="after")
    def _in_order(self) -> "AutoscalingSettings":
        if self.max_replicas < self.min_replicas:
            raise ValueError(
                f"max_replicas is {self.max_replicas}, min_replicas {self.min_replicas}; at least as many are expected"
            )
        return self


class ServeConfig(Settings):
    """One endpoint."""

    bundle: str = Setting(
        min_length=1,
        on_resume="free",
        description="a bundle's folder, or a recogniser that ships: odia, bangla, thai",
    )
    storage_path: str = Setting(
        "runs/serve",
        min_length=1,
        on_resume="free",
        description="folder (or s3://…) of its models, journal and corrections; LIPI_STORAGE, where set, holds relative ones",
    )
    backend: str | None = Setting(
        None, on_resume="free", description="of the bundle; null: its own choice for the device"
    )
    host: str = Setting(
        "127.0.0.1",
        on_resume="free",
        description="address to listen on; any but this machine's own needs api_keys_sha256",
    )
    port: int = Setting(8000, ge=1, le=65535, on_resume="free", description="to listen on")
    num_cpus: float = Setting(
        1.0, gt=0, on_resume="free", description="cores of a replica, and its threads"
    )
    num_gpus: float = Setting(0.0, ge=0, on_resume="free", description="GPUs of a replica")
    batch_size: int = Setting(
        16,
        ge=1,
        on_resume="free",
        description="images that are read at once; a batch fills while the one before is read, and never waits",
    )
    promote_timeout_s: float = Setting(
        120.0,
        gt=0,
        on_resume="free",
        description="for all replicas to have loaded a promoted bundle, else it is rolled back",
    )
    promote_when_sure: bool = Setting(
        True,
        on_resume="free",
        description="a retrained model that is better beyond doubt is promoted by itself; false: a person promotes every one",
    )
    autoscaling: AutoscalingSettings = Setting(
        AutoscalingSettings(), on_resume="free", description="replicas"
    )
    limits: LimitSettings = Setting(
        LimitSettings(), on_resume="free", description="what is refused"
    )
    api_keys_sha256: tuple[str, ...] = Setting(
        (),
        on_resume="free",
        description="SHA-256, in hex, of keys that are let in (Authorization: Bearer KEY); none: everyone on this machine",
    )

    @pydantic.model_validator(mode="after")
    def _keys_where_others_come(self) -> "ServeConfig":
        if not self.api_keys_sha256 and not _is_loopback(self.host):
            raise ValueError(
                f"host {self.host} is reached from elsewhere; set api_keys_sha256=[…] (printf %s KEY | sha256sum), or host=127.0.0.1"
            )
        wrong = [
            digest
            for digest in self.api_keys_sha256
            if len(digest) != 64 or not set(digest) <= set("0123456789abcdef")
        ]
        if wrong:
            raise ValueError(
                f"api_keys_sha256: {len(wrong)} of them are not SHA-256 in hex (printf %s KEY | sha256sum); keys themselves do not belong here"
            )
        return self


def _is_loopback(host: str) -> bool:
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"
