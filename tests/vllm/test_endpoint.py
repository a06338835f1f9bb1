"""An endpoint whose replica reads with vLLM."""

from pathlib import Path

import requests

from ocr.dataset.read import Dataset
from ocr.images import open_image
from ocr.recognizers.factory import load
from tests.support.running import endpoint


def test_an_endpoint_reads_with_vllm_and_changes_the_model(
    merged: Path, run_dir: Path, tmp_path: Path
) -> None:
    data = Dataset.open("odia_few_words", "validation")
    images = [data.image_bytes(index) for index in range(20)]
    ours = load(merged).read([open_image(image, "RGB") for image in images])
    words = ("backend=vllm", "autoscaling.max_replicas=1", "promote_timeout_s=300")
    with endpoint(tmp_path, *words, bundle=str(merged), start_s=400) as running:

        def read() -> tuple[list[str], set[str]]:
            answers = [
                requests.post(
                    f"{running.address}/v1/ocr",
                    data=image,
                    headers={"Content-Type": "image/webp"},
                    timeout=60,
                ).json()
                for image in images
            ]
            return [each["text"] for each in answers], {each["model"] for each in answers}

        texts, models = read()
        assert texts == [reading.text for reading in ours]
        from serve.models import Models

        adapter = Models(str(tmp_path)).add(str(run_dir / "bundle"))
        assert adapter not in models
        assert running.promote(adapter, timeout_s=400)["what"] == "live"
        assert read() == (texts, {adapter})
