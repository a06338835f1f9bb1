"""Settings → the base model that they name: a folder, a model of the hub, or the tiny one."""

from functools import lru_cache
from pathlib import Path

from ocr.errors import UserError, first_line
from ocr.recognizers.vlm.base_model import Base
from ocr.recognizers.vlm.settings import TinyVlmSettings, VlmSettings
from ocr.recognizers.vlm.tiny import built


@lru_cache(maxsize=4)  # tokenizer and hash are used in several modules
def find_base(settings: VlmSettings | TinyVlmSettings) -> Base:
    """Return the base model that the settings name.

    That is a folder, a model of the hub, or the tiny model. A model of the hub is downloaded where
    it is not in the cache; the tiny model is built where it is missing.
    """
    if isinstance(settings, TinyVlmSettings):
        return Base(built(settings), f"tiny_vlm {settings.architecture}")
    folder = Path(settings.name_or_path).expanduser()
    if folder.is_dir():
        if not (folder / "config.json").is_file():
            raise UserError(
                f"model.name_or_path: {folder}: no config.json; name the folder of a model as "
                "save_pretrained writes it"
            )
        return Base(folder, settings.name_or_path)
    if folder.is_absolute() or settings.name_or_path.count("/") != 1:
        raise UserError(
            f"model.name_or_path: {settings.name_or_path}: no such folder, nor a name of the "
            "hub (OWNER/NAME)"
        )
    return Base(_downloaded(settings), settings.name_or_path)


def _downloaded(settings: VlmSettings) -> Path:
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import HfHubHTTPError, LocalEntryNotFoundError

    try:
        return Path(
            snapshot_download(
                settings.name_or_path,
                revision=settings.revision,
                allow_patterns=["*.json", "*.safetensors", "*.jinja", "*.txt", "README.md"],
            )
        )
    except (LocalEntryNotFoundError, HfHubHTTPError, OSError) as problem:
        raise UserError(
            f"model.name_or_path: {settings.name_or_path}: not in the hub's cache on this "
            f"machine, and the download failed: {first_line(problem)}. "
            "Name a local folder, or try configs/tiny_vlm.yaml, which needs neither hub nor GPU"
        ) from None
