"""The CTC family as the runs see it."""

from ocr.dataset.read import Dataset
from trainers.config import TrainConfig
from trainers.families.ctc.export import export_bundle
from trainers.families.ctc.initial import initial_bundle
from trainers.families.ctc.samples import CtcUsableSamples, usable_samples
from trainers.families.ctc.task import CtcTask
from trainers.families.family import Family
from trainers.families.splits import Splits, Trained


def _no_preflight(_config: TrainConfig, _splits: Splits) -> str:
    """Return no table: a CTC network is built from its settings, so nothing can fail to fit."""
    return ""


def _origins(config: TrainConfig) -> dict[str, str]:
    """Return the SHA-256 of the bundle that `train.init_from` names."""
    path = config.train.init_from
    return {"init_from": initial_bundle(path).sha256} if path else {}


def _task(
    config: TrainConfig,
    usable: CtcUsableSamples,
    train: Trained,
    validation: Dataset,
    device: str,
    _precision: str,
) -> CtcTask:
    return CtcTask(config, usable, train, validation, device)


CTC = Family(
    name="ctc",
    usable_samples=usable_samples,
    preflight=_no_preflight,
    origins=_origins,
    new_task=_task,
    exporters={"bundle": export_bundle},
    finishes_on_gpu=False,
)
