"""The model card of a bundle: its provenance as a dict, and README.md with the hub's metadata."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from ocr.bundle import Bundle
from ocr.errors import UserError
from ocr.templates import environment
from trainers.families.task import Task

MODEL_CARD = "README.md"


def card_of(
    task: Task, steps: Sequence[int], fingerprints: Mapping[str, str], final: bool
) -> dict[str, Any]:
    """Return a bundle's provenance: run, steps and data.

    `final`: nothing of the run was left to train.
    """
    about = {
        "run": task.config.run_name,
        "step": max(steps),
        "final": final,
        "data": task.validation_data.folder,
        "samples": len(task.train_ids),
        "fingerprints": dict(fingerprints),
    }
    return {**about, "averaged_steps": list(steps)} if len(steps) > 1 else about


def card_text(bundle: Bundle) -> str:
    """Return Markdown under metadata that huggingface_hub's own classes accept.

    Raises UserError with their message where they do not.
    """
    from huggingface_hub import ModelCard
    from huggingface_hub.errors import HfHubHTTPError

    template = environment(Path(__file__).parent, markdown=True).get_template("card.md.j2")
    body = template.render(
        bundle=bundle, card=bundle.card, form=bundle.card.get("form"), base=bundle.card.get("base")
    )
    try:
        text = f"---\n{_metadata(bundle).to_yaml()}\n---\n\n{body}"
        ModelCard(text)
    except (ValueError, TypeError, HfHubHTTPError) as problem:
        raise UserError(f"{bundle.path}: the model card's metadata: {problem}") from None
    return text


def _metadata(bundle: Bundle) -> Any:
    from huggingface_hub import EvalResult, ModelCardData

    base = bundle.card.get("base")
    results = [
        EvalResult(
            "image-to-text",
            "lipi",
            str(bundle.card.get("data_name") or "validation split"),
            "cer",
            round(cer, 6),
            metric_name=f"CER ({backend})",
        )
        for backend, cer in bundle.backends.items()
        if cer == cer  # not NaN: measured
    ]
    about: dict[str, Any] = {
        "license": base["license"] if base and base["license"] != "unknown" else "other"
    }
    if base and "/" in base["name"] and not Path(base["name"]).exists():
        about["base_model"] = base["name"]
    library = {"adapter": "peft", "merged": "transformers"}.get(str(bundle.card.get("form")))
    return ModelCardData(
        model_name=bundle.name,
        library_name=library,
        pipeline_tag="image-to-text",
        tags=["ocr", "lipi", bundle.family],
        metrics=["cer"],
        eval_results=results,
        **about,
    )
