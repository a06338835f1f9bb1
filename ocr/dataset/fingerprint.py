"""The fingerprint of a data set: equal ones mean the same samples."""

import hashlib
import json


class Fingerprint:
    """SHA-256 over (id, text, SHA-256 of the image) of every sample, in order."""

    def __init__(self) -> None:
        self._digest = hashlib.sha256()

    def add(self, id: str, text: str, image: bytes) -> None:
        """Add one more sample."""
        self._digest.update(
            json.dumps([id, text, hashlib.sha256(image).hexdigest()]).encode() + b"\n"
        )

    def hexdigest(self) -> str:
        """Return the fingerprint of all samples so far."""
        return self._digest.hexdigest()
