"""A vision-language bundle to train further, and the corrections for it."""

import json
from collections.abc import Sequence
from pathlib import Path

from ocr.dataset.read import Dataset
from ocr.images import encode_image, open_image
from ocr.replay import TRAIN, VALIDATION, rows_file
from tests.support.tiny import tiny_vlm_config, train_here
from trainers.config import TrainConfig
from trainers.runs.launch import launch


def adapter_bundle(storage: Path, steps: int, base_steps: int, data: str) -> Path:
    """Return the bundle of a run of so many steps on a tiny base that learnt for `base_steps`."""
    config = _config(storage, steps, base_steps, data)
    return launch(config, train_here, "the command").run_dir / "bundle"


def _config(storage: Path, steps: int, base_steps: int, data: str) -> TrainConfig:
    return tiny_vlm_config(
        storage,
        data={"train": data},
        train={
            "max_steps": steps,
            "save_steps": steps,
            "eval_steps": steps,
            "eval_on_start": False,
        },
        model={"base_steps": base_steps},
        loss={"confusion_weight": 0.0, "focal_gamma": 0.0, "label_smoothing": 0.0},
        kornia={"strength": 0.0},
        lora={"rank": 16, "dropout": 0.0},
        generation={"max_new_tokens": 24, "batch_size": 32, "max_eval_samples": 6},
    )


def few_samples(folder: Path, data: str, train: int, validation: int) -> str:
    """Write the first samples of both splits of a data set as one of its own; return its folder."""
    folder.mkdir(parents=True)
    for name, count in ((TRAIN, train), (VALIDATION, validation)):
        split = Dataset.open(data, name.removesuffix(".parquet"))
        (folder / name).write_bytes(rows_file(split, range(min(count, len(split)))))
    return str(folder)


def corrections_of(folder: Path, data: str, indices: Sequence[int]) -> Path:
    """Write training samples of a data set as corrections, PNG + JSON."""
    samples = Dataset.open(data, "train")
    folder.mkdir(parents=True)
    for index in indices:
        image = encode_image(open_image(samples.image_bytes(index)))
        (folder / f"{index:03}.png").write_bytes(image)
        text = json.dumps({"corrected_text": samples.texts[index]}, ensure_ascii=False)
        (folder / f"{index:03}.json").write_text(text)
    return folder
