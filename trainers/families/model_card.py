"""The model card of a bundle, README.md: all of it from the bundle itself, with metadata as the hub reads it."""

from pathlib import Path
from typing import Any

from jinja2 import Environment, FileSystemLoader, StrictUndefined

from ocr.bundle import Bundle
from ocr.errors import UserError

MODEL_CARD = "README.md"


def card_text(bundle: Bundle) -> str:
    """Markdown under metadata that huggingface_hub's own classes accepted; UserError with their word where they did not."""
    from huggingface_hub import ModelCard
    from huggingface_hub.errors import HfHubHTTPError

    template = Environment(
        loader=FileSystemLoader(Path(__file__).parent),
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        autoescape=False,  # noqa: S701  (Markdown)
    )
    body = template.get_template("card.md.j2").render(
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
