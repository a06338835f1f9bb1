"""An S3 server on this machine, moto's, and machines that share nothing else."""

import logging
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import boto3
import pytest
import requests
from moto.server import ThreadedMotoServer


@contextmanager
def bucket_server(trouble: Callable[[str], bool] = lambda _: False) -> Iterator[Any]:
    """Yield a client of a server with one empty bucket, `lipi`; the environment leads there.

    It answers 500 to a request for whose method and path `trouble` returns True, and may be slow.
    """
    server = ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    server.start()
    logging.getLogger("werkzeug").setLevel(logging.ERROR)
    _answer_500(server, trouble)
    host, port = server.get_host_and_port()
    address = f"http://{host}:{port}"
    requests.post(f"{address}/moto-api/reset", timeout=10)  # buckets outlive servers
    try:
        with pytest.MonkeyPatch.context() as patch:
            patch.setenv("AWS_ENDPOINT_URL", address)
            patch.setenv("AWS_ACCESS_KEY_ID", "key")
            patch.setenv("AWS_SECRET_ACCESS_KEY", "secret")
            patch.setenv("AWS_REGION", "us-east-1")
            client = boto3.client("s3", region_name="us-east-1")
            client.create_bucket(Bucket="lipi")
            yield client
            client.close()
    finally:
        server.stop()


def machine(cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Be another machine, as far as files go: the data that is there is not prepared again."""
    cache.mkdir()
    (cache / "data").symlink_to(Path("~/.cache/lipi/data").expanduser())
    monkeypatch.setenv("LIPI_CACHE", str(cache))


def _answer_500(server: ThreadedMotoServer, trouble: Callable[[str], bool]) -> None:
    assert server._server
    moto = server._server.app

    def app(environ: Any, start_response: Any) -> Any:
        asked = f"{environ['REQUEST_METHOD']} {environ['PATH_INFO']}"
        if "moto-api" not in asked and trouble(asked):
            environ["wsgi.input"].read(int(environ.get("CONTENT_LENGTH") or 0))
            start_response("500 Internal Server Error", [("Content-Length", "0")])
            return [b""]
        return moto(environ, start_response)

    server._server.app = app
