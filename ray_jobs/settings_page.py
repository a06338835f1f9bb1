"""docs/settings.md, written from the settings themselves: `python -m ray_jobs.settings_page`."""

from ocr.dataset.config import PrepareConfig
from ocr.reading.config import ReadConfig
from ocr.retraining import RetrainConfig
from ocr.settings import Settings
from ocr.settings_reference import as_markdown, shared_as_markdown
from ocr.sources.settings import SourceSettings
from ray_jobs.command import PROJECT
from serve.config import ServeConfig
from trainers.config import FAMILY_GROUPS, TrainConfig
from trainers.config.export_request import ExportRequest
from trainers.sweep.settings import SweepConfig

PAGE = PROJECT / "docs" / "settings.md"
KINDS: dict[str, type[Settings]] = {
    "train.py, train_odia.py": TrainConfig,
    "prepare.py": PrepareConfig,
    "read.py": ReadConfig,
    "sweep.py": SweepConfig,
    "export.py": ExportRequest,
    "retrain.py": RetrainConfig,
    "deploy.py": ServeConfig,
}
_NAMES = {"ctc": "(CTC networks only)", "vlm": "(vision-language models only)"}
_FAMILIES = {group: _NAMES[family] for group, family in FAMILY_GROUPS.items()}
_INTRODUCTION = """# Settings

Written by `python -m ray_jobs.settings_page` from the code; `python ray_jobs/train.py --settings
optimizer` prints a group in the terminal, likewise `prepare.py`, `read.py`,
`sweep.py`, `export.py`, `retrain.py` and `deploy.py`.

Settings stand in a YAML file as nested groups and on the command line as `group.setting=value`.
*On resume* says what another value means for a run that exists: `refuse` is another run,
`rounding` continues equal to rounding, `free` has no effect on the weights.

On the command line a setting of type text takes the word after `=` as it stands: `#`, `: `,
numbers, dates and commas are part of it. Other types are read as YAML: a list is `[a, b]`, a
mapping `{a: b}`. `null` unsets a setting that may be null. A path may begin with `~`, also in YAML.

`export.py` also takes any setting of the run, such as `decoding.method=beam`.

## Environment variables

| variable | default | |
|---|---|---|
| `LIPI_STORAGE` | – | Folder that every node mounts; a relative `storage_path` lies under it |
| `LIPI_CACHE` | `~/.cache/lipi` | Folder for what can be made again: data sets, the tiny base |
| `LIPI_ACCELERATOR` | – | `gpu` or `cpu`: what the cluster has, or will have once it scales up |
| `LIPI_NICE` | 0 | Niceness of training workers, for training beside an endpoint |
| `LIPI_ALLOCATE_AT` | – | For tests: `point:step:rank:marker` at which memory runs out |
| `LIPI_HANG_AT` | – | For tests: `point:step:rank:marker` at which a process sleeps for ever |
| `LIPI_KILL_AT` | – | For tests: `point:step:rank:marker` at which a process kills itself |
| `LIPI_LLAMA_CPP` | – | For tests: a checkout of llama.cpp to export with |
| `LIPI_TEST_FILES` | 4000 | For tests: how many files the test of bulk reading reads |
| `RAY_ADDRESS` | – | Ray's own: the cluster to run on; without it, Ray starts on this machine |
| `HF_TOKEN`, `HF_HUB_OFFLINE` | – | Hugging Face's own: the token for uploads, and no downloads |
"""


def text() -> str:
    """Return the whole page."""
    parts = [_INTRODUCTION]
    for scripts, kind in KINDS.items():
        parts += [
            f"\n## {scripts}",
            as_markdown(kind, SourceSettings, _FAMILIES if kind is TrainConfig else {}),
        ]
    sources = "Sources of `prepare.py`, and of `data.train`, `data.validation` and `data.replay`."
    parts += ["\n## Sources", "", sources, shared_as_markdown(SourceSettings)]
    return "\n".join(parts) + "\n"


if __name__ == "__main__":
    PAGE.write_text(text(), encoding="utf-8")
