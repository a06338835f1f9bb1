"""API keys, compared in constant time."""

import hashlib
import hmac
from collections.abc import Sequence

from serve.errors import Refused


def require_key(authorization: Sequence[str], digests: Sequence[str]) -> None:
    """Raise Refused 401 unless the only Authorization header is `Bearer KEY` with a known key.

    `digests` are SHA-256 in hex; without any, everyone is let in.
    """
    if not digests:
        return
    given = ""
    if len(authorization) == 1:
        scheme, _, rest = authorization[0].strip().partition(" ")
        given = rest.strip() if scheme.lower() == "bearer" else ""  # any case: RFC 7235, 2.1
    digest = hashlib.sha256(given.encode()).hexdigest()
    known = sum(hmac.compare_digest(digest, each) for each in digests)  # all, in constant time
    if not known or not given:
        raise Refused(401, "unauthorized", "expected Authorization: Bearer KEY with a known key")
