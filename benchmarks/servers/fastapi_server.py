"""What a FastAPI user writes: one route for a raw image, one for a form of files; reading in the
thread pool, or through a hand-written micro-batcher.

python -m benchmarks.servers.fastapi_server --port 8001 --workers 1 [--batching] [--model odia]
"""

import argparse
import asyncio
import os
from collections.abc import AsyncIterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager
from typing import Any

import uvicorn
from fastapi import FastAPI, HTTPException, Request, UploadFile
from fastapi.concurrency import run_in_threadpool

from benchmarks.servers.models import model
from ocr.images import ImageRefused, open_image


class MicroBatcher:
    """Twenty lines: a batch fills while the one before is read."""

    def __init__(self, recognizer: Any, most: int = 16) -> None:
        self.recognizer, self.most = recognizer, most
        self.waiting: asyncio.Queue[tuple[Any, asyncio.Future[Any]]] = asyncio.Queue()
        self.thread = ThreadPoolExecutor(1)

    async def read(self, pixels: Any) -> Any:
        future = asyncio.get_running_loop().create_future()
        self.waiting.put_nowait((pixels, future))
        return await future

    async def work(self) -> None:
        while True:
            batch = [await self.waiting.get()]
            while len(batch) < self.most and not self.waiting.empty():
                batch.append(self.waiting.get_nowait())
            readings = await asyncio.get_running_loop().run_in_executor(
                self.thread, self.recognizer.read, [pixels for pixels, _ in batch]
            )
            for (_, future), reading in zip(batch, readings, strict=True):
                if not future.done():
                    future.set_result(reading)


def build() -> FastAPI:
    batching = os.environ.get("BATCHING") == "1"

    @asynccontextmanager
    async def lifespan(app: FastAPI) -> AsyncIterator[None]:
        app.state.recognizer = model(os.environ["MODEL"])
        app.state.batcher = MicroBatcher(app.state.recognizer)
        task = asyncio.create_task(app.state.batcher.work())
        yield
        task.cancel()

    app = FastAPI(lifespan=lifespan)

    def opened(body: bytes) -> Any:
        try:
            return open_image(body, app.state.recognizer.image_mode)
        except ImageRefused as refused:
            raise HTTPException(422, str(refused)) from None

    async def read(bodies: list[bytes]) -> list[Any]:
        if batching:
            return list(
                await asyncio.gather(*[app.state.batcher.read(opened(body)) for body in bodies])
            )
        return await run_in_threadpool(
            lambda: app.state.recognizer.read([opened(body) for body in bodies])
        )

    @app.post("/v1/ocr")
    async def ocr(request: Request) -> dict[str, Any]:
        reading = (await read([await request.body()]))[0]
        return {"text": reading.text, "confidence": reading.confidence}

    @app.post("/v1/forms")
    async def forms(files: list[UploadFile]) -> dict[str, Any]:
        readings = await read([await file.read() for file in files])
        return {
            "results": [
                {"text": reading.text, "confidence": reading.confidence} for reading in readings
            ]
        }

    @app.get("/healthz")
    async def healthz() -> dict[str, str]:
        return {"status": "ok"}

    return app


if __name__ == "__main__":
    parser = argparse.ArgumentParser()
    parser.add_argument("--port", type=int, required=True)
    parser.add_argument("--workers", type=int, default=1)
    parser.add_argument("--batching", action="store_true")
    parser.add_argument("--model", default="odia")
    arguments = parser.parse_args()
    os.environ.update(BATCHING=str(int(arguments.batching)), MODEL=arguments.model)
    uvicorn.run(
        "benchmarks.servers.fastapi_server:build",
        factory=True,
        port=arguments.port,
        workers=arguments.workers,
        access_log=False,
        log_level="warning",
    )
