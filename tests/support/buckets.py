"""An S3 server on this machine: moto's."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import boto3
import pytest
import requests
from moto.server import ThreadedMotoServer


@contextmanager
def bucket_server() -> Iterator[Any]:
    """Yield a client of a server with one empty bucket, `lipi`; the environment leads there."""
    server = ThreadedMotoServer(ip_address="127.0.0.1", port=0)
    server.start()
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
