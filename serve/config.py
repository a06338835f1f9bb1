"""Every setting of the endpoint. No torch, no ray here."""

import functools
import ipaddress
import re
from collections.abc import Sequence
from typing import Literal

import pydantic

from ocr.limits import ImageLimits
from ocr.reading.config import DETECTOR
from ocr.retraining import GateSettings
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


Role = Literal["read", "correct", "train"]


class KeySettings(Settings):
    """A key: who has it, what its owner may do, and its SHA-256."""

    name: str = Setting(
        min_length=1,
        max_length=80,
        pattern=r"^[\w.@-]([\w .@-]*[\w.@-])?$",
        on_resume="free",
        description="Owner of the key, for the journal and for corrections",
    )
    role: Role = Setting(
        "read",
        on_resume="free",
        description="Right of the owner: read; correct, which includes read; train (and promote), "
        "which includes both",
    )
    sha256: str = Setting(
        on_resume="free", description="SHA-256 in hex of the key (printf %s KEY | sha256sum)"
    )

    @pydantic.model_validator(mode="after")
    def _is_digest(self) -> "KeySettings":
        _require_digests([self.sha256])  # not a bound of the field, whose error shows the value
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
        description="Backend of the bundle; vllm: of a vision-language bundle, where it is "
        "installed (make vllm); null: the bundle's choice for the device",
    )
    host: str = Setting(
        "127.0.0.1",
        on_resume="free",
        description="Address to listen on; any but this machine's own needs api_keys",
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
    detector: DETECTOR = Setting(
        "auto",
        on_resume="free",
        description="What finds the lines of a page: detector, the network that ships; classical, "
        "by rules and without a network; auto, the detector where it can run",
    )
    promote_timeout_s: float = Setting(
        120.0,
        gt=0,
        on_resume="free",
        description="Seconds for all replicas to load a promoted bundle, else it is rolled back",
    )
    promote_when_sure: bool | None = Setting(
        None,
        on_resume="free",
        description="Promote a retrained model that is better beyond doubt; false: only by hand; "
        "null: true where no keys are set, false where they are",
    )
    gate: GateSettings = Setting(
        GateSettings(), on_resume="free", description="Conditions for a retrained model"
    )
    allowed_hosts: tuple[str, ...] = Setting(
        (),
        on_resume="free",
        description="Names, without a port, by which the endpoint is reached (the header Host), "
        "beside localhost and addresses; none: any name where keys are set, else no other",
    )
    autoscaling: AutoscalingSettings = Setting(
        AutoscalingSettings(), on_resume="free", description="Number of replicas"
    )
    limits: LimitSettings = Setting(
        LimitSettings(), on_resume="free", description="Limits on requests"
    )
    label_studio_url: str | None = Setting(
        None,
        pattern=r"^https?://[^/?#@]+/?$",
        on_resume="free",
        description="Address of a Label Studio that uses this endpoint: images of its tasks are "
        "fetched there, with LABEL_STUDIO_API_KEY of the environment; none: nothing is fetched",
    )
    api_keys: tuple[KeySettings, ...] = Setting(
        (),
        on_resume="free",
        description="Accepted keys (Authorization: Bearer KEY), a list of {name, role, sha256}; "
        "none: no key is needed on this machine",
    )
    api_keys_sha256: tuple[str, ...] = Setting(
        (),
        on_resume="free",
        description="SHA-256 in hex of further accepted keys, each with the role train",
    )

    @functools.cached_property
    def keys(self) -> tuple[KeySettings, ...]:
        """All keys; one of `api_keys_sha256` is named after the first digits of its digest."""
        unnamed = [
            KeySettings(name=f"key {digest[:8]}", role="train", sha256=digest)
            for digest in self.api_keys_sha256
        ]
        return (*self.api_keys, *unnamed)

    @property
    def promotes_when_sure(self) -> bool:
        """Whether a retrained model that is better beyond doubt is promoted by itself."""
        return not self.keys if self.promote_when_sure is None else self.promote_when_sure

    @pydantic.field_validator("api_keys_sha256")
    @classmethod
    def _digests(cls, digests: tuple[str, ...]) -> tuple[str, ...]:
        _require_digests(digests)
        return digests

    @pydantic.field_validator("allowed_hosts")
    @classmethod
    def _names(cls, names: tuple[str, ...]) -> tuple[str, ...]:
        wrong = [name for name in names if not re.match(r"^[A-Za-z0-9.-]+$", name)]
        if wrong:
            raise ValueError(f"expected names without scheme and port, got {wrong[0]!r}")
        return tuple(name.lower().rstrip(".") for name in names)

    @pydantic.model_validator(mode="after")
    def _keys_where_others_come(self) -> "ServeConfig":
        if not self.keys and not _is_loopback(self.host):
            raise ValueError(
                f"host {self.host} is reached from other machines; set "
                "api_keys=[{name: ME, role: train, sha256: …}] (printf %s KEY | sha256sum), or "
                "host=127.0.0.1"
            )
        for field in ("name", "sha256"):
            given = [getattr(key, field) for key in self.keys]
            if twice := [value for value in given if given.count(value) > 1]:
                raise ValueError(f"api_keys: the {field} {twice[0]} is given twice")
        return self


def _require_digests(digests: Sequence[str]) -> None:
    wrong = [digest for digest in digests if not re.fullmatch(r"[0-9a-f]{64}", digest)]
    if wrong:
        raise ValueError(
            "expected SHA-256 in hex (printf %s KEY | sha256sum), got "
            f"{len(wrong)} other values; keys themselves do not belong here"
        )


def _is_loopback(host: str) -> bool:
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"
