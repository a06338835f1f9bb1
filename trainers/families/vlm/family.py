"""The family of vision-language models as the runs see it."""

from trainers.families.family import Family
from trainers.families.vlm.export import export_adapter, export_merged
from trainers.families.vlm.gguf import export_gguf
from trainers.families.vlm.initial_adapter import origins
from trainers.families.vlm.preflight import preflight
from trainers.families.vlm.samples import usable_samples
from trainers.families.vlm.task import VlmTask

VLM = Family(
    name="vlm",
    usable_samples=usable_samples,
    preflight=preflight,
    origins=origins,
    new_task=VlmTask,
    exporters={"bundle": export_adapter, "merged": export_merged, "gguf": export_gguf},
    finishes_on_gpu=True,
)
