"""What LitServe's documentation sets up: a LitAPI whose predict takes a batch of decoded requests;
it takes JSON or forms, not raw bodies.

python -m benchmarks.servers.litserve_server --port 8001 --workers 1 --model odia
"""

import argparse
import base64
from typing import Any

import litserve
from fastapi import Request

from benchmarks.servers.models import model
from ocr.images import open_image


class OcrApi(litserve.LitAPI):
    """One image a request, as base64."""

    def __init__(self, name: str, batch: int) -> None:
        super().__init__(
            max_batch_size=batch, batch_timeout=0.005 if batch > 1 else 0.0, api_path="/v1/ocr"
        )
        self.name = name

    def setup(self, device: str) -> None:  # noqa: ARG002
        self.recognizer = model(self.name)

    def decode_request(self, request: Request) -> Any:
        return open_image(base64.b64decode(request["image"]), self.recognizer.image_mode)  # type: ignore[index]

    def batch(self, inputs: list[Any]) -> list[Any]:
        return list(inputs)  # images differ in width; the default stacks them

    def unbatch(self, output: Any) -> list[Any]:
        return list(output)

    def predict(self, given: Any) -> Any:
        readings = self.recognizer.read(given if isinstance(given, list) else [given])
        return readings if isinstance(given, list) else readings[0]

    def encode_response(self, reading: Any) -> dict[str, Any]:
        return {"text": reading.text, "confidence": reading.confidence}


if __name__ == "__main__":
    parser = argparse.ArgumentParser()
    parser.add_argument("--port", type=int, required=True)
    parser.add_argument("--workers", type=int, default=1)
    parser.add_argument("--model", default="odia")
    parser.add_argument("--batch", type=int, default=8)
    arguments = parser.parse_args()
    server = litserve.LitServer(
        OcrApi(arguments.model, arguments.batch),
        accelerator="cpu",
        workers_per_device=arguments.workers,
        healthcheck_path="/healthz",
    )
    server.run(
        port=arguments.port, generate_client_file=False, log_level="warning", access_log=False
    )
