"""Every setting of the endpoint. No torch, no ray here."""

import ipaddress

import pydantic

from ocr.limits import ImageLimits
from ocr.settings import PathText, Setting, Settings

_IMAGES = ImageLimits()


class LimitSettings(Settings):
    """Limits checked before any work is done for a request."""

    max_body_bytes: int = Setting(
        20_000_000,
        ge=1,
        on_resume="free",
        description="Largest body of a request in bytes, counted while it is received",
    )
    max_images: int = Setting(64, ge=1, on_resume="free", description="Most images in a request")
    max_pages: int = Setting(
        20, ge=1, on_resume="free", description="Most PDF and TIFF pages in a request (level=page)"
    )
    max_lines: int = Setting(1000, ge=1, on_resume="free", description="Most lines cut from a page")
    max_pixels: int = Setting(
        _IMAGES.max_pixels,
        ge=1,
        on_resume="free",
        description="Most pixels of an image, checked in its header",
    )
    max_side_px: int = Setting(
        _IMAGES.max_side_px,
        ge=1,
        on_resume="free",
        description="Longest side of an image in pixels, checked in its header",
    )
    max_decode_bytes: int = Setting(
        1_000_000_000,
        ge=50_000_000,
        on_resume="free",
        description="Most memory in bytes that decoding a file may take, in a process of its own",
    )
    max_decode_s: float = Setting(
        10.0,
        ge=1,
        on_resume="free",
        description="CPU seconds that decoding a file may take (all pages of a PDF together)",
    )
    max_ongoing_requests: int = Setting(
        32, ge=1, on_resume="free", description="Requests that a replica works on at once"
    )
    max_queued_requests: int = Setting(
        64,
        ge=0,
        on_resume="free",
        description="Requests queued per replica before further ones get 503 with Retry-After",
    )
    max_store_bytes: int = Setting(
        10_000_000_000,
        ge=0,
        on_resume="free",
        description="Most bytes that corrections take in storage_path; further ones get 507",
    )
    max_batch_s: float = Setting(
        120.0,
        gt=0,
        on_resume="free",
        description="Seconds of one batch after which a replica is not ready, and is replaced",
    )
    request_timeout_s: float = Setting(
        30.0,
        gt=0,
        on_resume="free",
        description="Seconds from a request's first byte to its answer, then 504 (408: slow body)",
    )

    @property
    def images(self) -> ImageLimits:
        """Limits as `ocr.images.open_image` takes them."""
        return ImageLimits(max_pixels=self.max_pixels, max_side_px=self.max_side_px)


class AutoscalingSettings(Settings):
    """The number of replicas and when it changes, in Ray Serve's words."""

    min_replicas: int = Setting(
        1, ge=1, on_resume="free", description="Fewest replicas; 2 survive the death of one"
    )
    max_replicas: int = Setting(2, ge=1, on_resume="free", description="Most replicas under load")
    target_ongoing_requests: float = Setting(
        4.0,
        gt=0,
        on_resume="free",
        description="Ongoing requests per replica above which replicas are added",
    )
    upscale_delay_s: float = Setting(
        5.0, ge=0, on_resume="free", description="Seconds of load before a replica is added"
    )
    downscale_delay_s: float = Setting(
        120.0, ge=0, on_resume="free", description="Seconds of less load before one is removed"
    )

    @pydantic.model_validator(mode="after")
    def _in_order(self) -> "AutoscalingSettings":
        if self.max_replicas < self.min_replicas:
            raise ValueError(
                f"max_replicas: expected at least min_replicas={self.min_replicas}, "
                f"got {self.max_replicas}"
            )
        return self


class ServeConfig(Settings):
    """One endpoint."""

    bundle: PathText = Setting(
        min_length=1,
        on_resume="free",
        description="Bundle to serve: a folder, or a shipped recogniser: odia, bangla, thai",
    )
    storage_path: PathText = Setting(
        "runs/serve",
        min_length=1,
        on_resume="free",
        description="Folder (or s3://…) of models, journal and corrections; relative: under "
        "LIPI_STORAGE where it is set",
    )
    backend: str | None = Setting(
        None,
        on_resume="free",
        description="Backend of the bundle; null: the bundle's choice for the device",
    )
    host: str = Setting(
        "127.0.0.1",
        on_resume="free",
        description="Address to listen on; any but this machine's own needs api_keys_sha256",
    )
    port: int = Setting(8000, ge=1, le=65535, on_resume="free", description="Port to listen on")
    num_cpus: float = Setting(
        1.0, gt=0, on_resume="free", description="CPU cores per replica, which are its threads too"
    )
    num_gpus: float = Setting(0.0, ge=0, on_resume="free", description="GPUs per replica")
    batch_size: int = Setting(
        16,
        ge=1,
        on_resume="free",
        description="Most images per batch; a batch fills while the previous one is read",
    )
    promote_timeout_s: float = Setting(
        120.0,
        gt=0,
        on_resume="free",
        description="Seconds for all replicas to load a promoted bundle, else it is rolled back",
    )
    promote_when_sure: bool = Setting(
        True,
        on_resume="free",
        description="Promote a retrained model that is better beyond doubt; false: only by hand",
    )
    autoscaling: AutoscalingSettings = Setting(
        AutoscalingSettings(), on_resume="free", description="Number of replicas"
    )
    limits: LimitSettings = Setting(
        LimitSettings(), on_resume="free", description="Limits on requests"
    )
    api_keys_sha256: tuple[str, ...] = Setting(
        (),
        on_resume="free",
        description="SHA-256 in hex of accepted keys (Authorization: Bearer KEY); none: no key is "
        "needed on this machine",
    )

    @pydantic.model_validator(mode="after")
    def _keys_where_others_come(self) -> "ServeConfig":
        if not self.api_keys_sha256 and not _is_loopback(self.host):
            raise ValueError(
                f"host {self.host} is reached from other machines; set api_keys_sha256=[…] "
                "(printf %s KEY | sha256sum), or host=127.0.0.1"
            )
        wrong = [digest for digest in self.api_keys_sha256 if not _is_sha256(digest)]
        if wrong:
            raise ValueError(
                "api_keys_sha256: expected SHA-256 in hex (printf %s KEY | sha256sum), got "
                f"{len(wrong)} other values; keys themselves do not belong here"
            )
        return self


def _is_sha256(digest: str) -> bool:
    return len(digest) == 64 and set(digest) <= set("0123456789abcdef")


def _is_loopback(host: str) -> bool:
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"
