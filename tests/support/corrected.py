"""Corrections as a folder of files."""

import json
from pathlib import Path

from ocr.dataset.read import Dataset
from ocr.images import encode_image, open_image


def twelve_corrections(folder: Path) -> Path:
    """Twelve words of the Odia validation data with their texts, as `retrain.py` takes them."""
    data = Dataset.open("odia_words", "validation")
    folder.mkdir()
    for index in range(12):
        image = encode_image(open_image(data.image_bytes(index)))
        (folder / f"{index:02}.png").write_bytes(image)
        text = json.dumps({"corrected_text": data.texts[index]}, ensure_ascii=False)
        (folder / f"{index:02}.json").write_text(text)
    return folder
