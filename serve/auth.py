"""Who asks and what they may do: API keys with names and roles, compared in constant time."""

import base64
import binascii
import hashlib
import hmac
from collections.abc import Sequence

from serve.config import KeySettings, Role
from serve.errors import Refused

_RIGHTS: dict[Role, int] = {"read": 0, "correct": 1, "train": 2}
_READERS_POSTS = ("/v1/ocr", "/v1/chat/completions", "/predict", "/setup")
_READERS_GETS = ("/v1/models", "/v1/corrections/stats", "/v1/key", "/v1/sample", "/metrics")
_CORRECTORS_POSTS = ("/v1/corrections", "/webhook")


def key_of(authorization: Sequence[str], keys: Sequence[KeySettings]) -> KeySettings | None:
    """Return the key of a request; None where no keys are set and everyone is let in.

    The only Authorization header is `Bearer KEY`, or `Basic` with the key as the password, as
    Label Studio sends it. Raises Refused 401 without a known key.
    """
    if not keys:
        return None
    given = _given(authorization[0]) if len(authorization) == 1 else b""
    # a header is bytes: most clients send UTF-8, some Latin-1
    digests = [hashlib.sha256(given), hashlib.sha256(given.decode("latin-1").encode())]
    found = [  # all are compared, in constant time
        key
        for key in keys
        if sum(hmac.compare_digest(digest.hexdigest(), key.sha256) for digest in digests)
    ]
    if not found or not given:
        raise Refused(401, "unauthorized", "expected Authorization: Bearer KEY with a known key")
    return found[0]


def _given(authorization: str) -> bytes:
    scheme, _, rest = authorization.strip().partition(" ")
    content = rest.strip().encode("latin-1")
    if scheme.lower() == "bearer":  # any case: RFC 7235, 2.1
        return content
    if scheme.lower() != "basic":
        return b""
    try:
        return base64.b64decode(content, validate=True).partition(b":")[2]
    except binascii.Error:
        return b""


def require_right(key: KeySettings | None, method: str, path: str) -> None:
    """Raise Refused 403 where the key's role does not include what the request needs."""
    require_role(key, right_of(method, path))


def require_role(key: KeySettings | None, needed: Role) -> None:
    """Raise Refused 403 where a key's role does not include another; None may do everything."""
    if key is not None and _RIGHTS[key.role] < _RIGHTS[needed]:
        message = f"{key.name} may {key.role}; this needs a key with the role {needed}"
        raise Refused(403, "not_allowed", message)


def right_of(method: str, path: str) -> Role:
    """Return the role that a request needs; `train` for every change that is not named here."""
    if method == "POST" and path in _READERS_POSTS:
        return "read"
    if method in ("GET", "HEAD"):
        is_readers = any(path == each or path.startswith(f"{each}/") for each in _READERS_GETS)
        return "read" if is_readers else "correct"
    is_correctors = method == "POST" and path in _CORRECTORS_POSTS
    # a corrector may remove their own corrections
    is_removal = method == "DELETE" and path.startswith("/v1/corrections/")
    return "correct" if is_correctors or is_removal else "train"
