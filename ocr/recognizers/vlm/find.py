"""Settings → the base model that they name: a folder, a model of the hub, or the tiny one."""

from functools import lru_cache
from pathlib import Path

from ocr.errors import UserError, first_line
from ocr.mirror import fetched
from ocr.recognizers.vlm.architectures import architecture_of
from ocr.recognizers.vlm.base_model import Base
from ocr.recognizers.vlm.settings import TinyVlmSettings, VlmSettings
from ocr.recognizers.vlm.tiny import built


@lru_cache(maxsize=4)  # tokenizer and hash are used in several modules
def find_base(settings: VlmSettings | TinyVlmSettings) -> Base:
    """Return the base model that the settings name; UserError where its architecture is unknown.

    That is a folder, also in a bucket, a model of the hub, or the tiny model. A model of the hub is
    downloaded where it is not in the cache; the tiny model is built where it is missing.
    """
    if isinstance(settings, TinyVlmSettings):
        return Base(built(settings), f"tiny_vlm {settings.architecture}")
    base = _named(settings)
    architecture_of(base.config.get("model_type"), f"model.name_or_path: {base.name}")
    return base


def _named(settings: VlmSettings) -> Base:
    name, inside = settings.name_or_path, settings.subfolder or ""
    repository = fetched(name).expanduser()
    if not repository.is_dir():
        if repository.is_absolute() or "://" in name or name.count("/") != 1:
            raise UserError(
                f"model.name_or_path: {name}: no such folder, nor a name of the hub (OWNER/NAME)"
            )
        repository = _downloaded(settings)
    folder = repository / inside
    if not (folder / "config.json").is_file():
        raise UserError(
            f"model.{'subfolder' if inside else 'name_or_path'}: {folder}: no config.json; name "
            "the folder of a model as save_pretrained writes it"
        )
    return Base(folder, name, repository)


def _downloaded(settings: VlmSettings) -> Path:
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import GatedRepoError, HfHubHTTPError, LocalEntryNotFoundError

    name = settings.name_or_path
    inside = f"{settings.subfolder.strip('/')}/" if settings.subfolder else ""
    wanted = [f"{inside}{end}" for end in ("*.json", "*.safetensors", "*.jinja", "*.txt")]
    try:
        return Path(
            snapshot_download(
                name, revision=settings.revision, allow_patterns=[*wanted, "README.md"]
            )
        )
    except GatedRepoError:
        raise UserError(
            f"model.name_or_path: {name}: its licence has to be accepted first, on "
            f"https://huggingface.co/{name}; then set HF_TOKEN to a token of yours"
        ) from None
    except (LocalEntryNotFoundError, HfHubHTTPError, OSError) as problem:
        raise UserError(
            f"model.name_or_path: {name}: not in the hub's cache on this "
            f"machine, and the download failed: {first_line(problem)}. "
            "Name a local folder, or try configs/tiny_vlm.yaml, which needs neither hub nor GPU"
        ) from None
