"""Every test run has an Arrow cache of its own."""

import os
import tempfile

import pytest


@pytest.fixture(scope="session", autouse=True)
def _own_cache() -> object:
    """Subprocesses and Ray workers inherit it."""
    with (
        tempfile.TemporaryDirectory(prefix="lipi-cache-") as folder,
        pytest.MonkeyPatch.context() as patch,
    ):
        patch.setitem(os.environ, "LIPI_CACHE", folder)
        yield
