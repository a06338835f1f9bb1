"""Settings of `ray_jobs/export.py` beside those of the run. No torch here."""

from typing import Literal

from ocr.settings import PathText, Setting, Settings


class ExportRequest(Settings):
    """One export."""

    format: Literal["bundle", "onnx", "merged", "gguf", "hub"] = Setting(
        "bundle",
        on_resume="free",
        description="Form. bundle: the run's backends; onnx: both ONNX ones too (ctc); merged: "
        "base and adapter as one model (vlm); gguf: for llama.cpp (vlm, export.llama_cpp); hub: "
        "upload to the Hugging Face hub",
    )
    output: PathText | None = Setting(
        None,
        on_resume="free",
        description="Folder to write; null: RUN/bundle, RUN/merged, RUN/gguf or "
        "RUN/bundle-averageK",
    )
    upload: Literal["bundle", "merged", "gguf"] = Setting(
        "bundle", on_resume="free", description="Form that format=hub exports and uploads"
    )
    repo_id: str | None = Setting(
        None,
        on_resume="free",
        pattern=r"^[\w.-]+/[\w.-]+$",
        description="OWNER/NAME on the hub; the token comes from HF_TOKEN alone",
    )
    private: bool = Setting(
        True, on_resume="free", description="Whether format=hub makes a new repository private"
    )
    data_name: str | None = Setting(
        None,
        on_resume="free",
        description="Name of the data on the model card; null: its folder on this machine",
    )
    average: int = Setting(
        1, ge=1, on_resume="free", description="Number of checkpoints whose weights are averaged"
    )
    of: Literal["best", "last"] = Setting(
        "best",
        on_resume="free",
        description="Checkpoints to average: the best by metric_for_best_model, or the newest",
    )
