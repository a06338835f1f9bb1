"""The adapter that a vision-language run starts from: of a bundle, a run, a checkpoint or PEFT."""

import hashlib
from pathlib import Path

from safetensors.torch import save
from torch import Tensor

from ocr.bundle import DESCRIPTION, MANIFEST, open_bundle
from ocr.errors import UserError
from ocr.files import read_json
from ocr.mirror import fetched
from ocr.recognizers.vlm.adapter import read_adapter, require_base
from ocr.recognizers.vlm.adapter_config import require_adapter_config, require_equal
from ocr.recognizers.vlm.base_model import Base
from ocr.recognizers.vlm.find import find_base
from ocr.recognizers.vlm.settings import LoraSettings
from trainers.config import TrainConfig, config_of_run
from trainers.loop import checkpoint as checkpoints

_ADAPTER = "default"


def origins(config: TrainConfig) -> dict[str, str]:
    """Return the SHA-256 of the base, and of the adapter that `train.init_from` names."""
    base = find_base(config.vlm)
    if not config.train.init_from:
        return {"base": base.sha256}
    weights = initial_adapter(fetched(config.train.init_from), base, config.lora)
    return {"base": base.sha256, "init_from": hashlib.sha256(save(weights)).hexdigest()}


def initial_adapter(path: Path, base: Base, lora: LoraSettings) -> dict[str, Tensor]:
    """Return the adapter that `train.init_from` names, under PEFT's own names.

    Raises UserError where there is none, or one of another base, rank, scale or kind.
    """
    for folder in (path / "bundle", path):
        if (folder / MANIFEST).is_file() and (folder / DESCRIPTION).is_file():
            bundle = open_bundle(folder)
            if bundle.family != "vlm":
                raise UserError(
                    f"{path}: a bundle of the family {bundle.family!r}; "
                    "train.init_from needs one with an adapter"
                )
            base_sha256 = bundle.model.get("base_sha256")
            require_base(base, base_sha256, str(folder))
            require_adapter_config(folder, lora, None if base_sha256 else base.name)
            return read_adapter(folder)
    if (path / "config.yaml").is_file() and checkpoints.steps_of(path):
        newest, damaged = checkpoints.newest_good(path.absolute(), None)
        if newest is None:
            raise UserError(f"{path}: no checkpoint is good: {'; '.join(damaged)}")
        path = newest.path
    if (path / checkpoints.MANIFEST).is_file():
        _require_run(path.parent, base, lora, str(path))
        weights = checkpoints.verify_hashes(path.absolute()).weights()
        return {
            name.removeprefix("model.").replace(f".{_ADAPTER}.", "."): tensor
            for name, tensor in weights.items()
            if name.startswith("model.")
        }
    weights = read_adapter(path)
    require_adapter_config(path, lora, base.name)
    return weights


def _require_run(run_dir: Path, base: Base, lora: LoraSettings, where: str) -> None:
    """Raise UserError where the run of a checkpoint has another base or adapter."""
    if (run_dir / "config.yaml").is_file():
        require_equal(config_of_run(run_dir / "config.yaml").lora, lora, where)
    if (run_dir / "run.json").is_file():
        fingerprints = read_json(run_dir / "run.json").get("fingerprints", {})
        require_base(base, fingerprints.get("base"), where)
