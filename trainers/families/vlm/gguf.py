"""A trained vision-language model for llama.cpp: the merged model through the converter of the user's own checkout, one file for the language model, one for the eyes.

Where the checkout has been built, llama-mtmd-cli reads the judged samples from those files and the gate compares; else the card says that no one did.
"""

import math
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, Literal

from PIL import Image

from ocr.bundle import write_bundle
from ocr.errors import UserError
from ocr.evaluation import evaluate
from ocr.images import Pixels
from ocr.recognizers.recognizer import opened
from ocr.recognizers.vlm.reading import VlmRecognizer
from ocr.sample import Reading
from ocr.text import normalise
from trainers.families.export_gate import Exported, require_agreement
from trainers.families.model_card import MODEL_CARD, card_text
from trainers.families.vlm.export import export_merged, folder_beside
from trainers.families.vlm.task import VlmTask

CONVERTER, READER = "convert_hf_to_gguf.py", "llama-mtmd-cli"
_TYPES = {"bfloat16": "bf16", "float16": "f16", "float32": "f32"}
_SECONDS = 7200


def export_gguf(task: VlmTask, path: Path, card: Mapping[str, Any]) -> Exported:
    """Merge, convert, and read with what was converted; UserError without a checkout, or with the converter's own last words."""
    settings, name = task.config.export, task.config.run_name
    checkout = checkout_of(settings.llama_cpp)
    merged = export_merged(task, path.with_name(f"{path.name}.merged"), card)
    about = replace(
        merged.bundle,
        path=path,
        family="gguf",
        backends={READER: math.nan},
        defaults={},
        card={**merged.bundle.card, "form": "gguf"},
    )
    with folder_beside(path) as folder:
        model, projector = folder / f"{name}.gguf", folder / f"mmproj-{name}.gguf"
        convert(checkout, merged.bundle.path, model, settings.merged_dtype, is_projector=False)
        convert(checkout, merged.bundle.path, projector, settings.merged_dtype, is_projector=True)
        exported, reader = replace(merged, bundle=about), checkout / "build" / "bin" / READER
        if reader.is_file():
            read = evaluate(
                LlamaCpp(reader, model, projector, task.recognizer),
                task.validation_data,
                task.judged,
            )
            require_agreement(READER, read, merged.evaluation, settings.max_cer_difference)
            exported = replace(
                exported, evaluation=read, bundle=replace(about, backends={READER: read.counts.cer})
            )
        else:
            print(
                f"{reader}: not built, so nothing was read with the GGUF files; their CER is not known",
                flush=True,
            )
        write_bundle(exported.bundle, {MODEL_CARD: card_text(exported.bundle).encode()}, folder)
    shutil.rmtree(merged.bundle.path)
    return exported


def checkout_of(path: str | None) -> Path:
    """The folder that has the converter; UserError that says where to get it."""
    if path is None:
        raise UserError(
            "format=gguf needs export.llama_cpp=FOLDER, a checkout of llama.cpp (github.com/ggml-org/llama.cpp), whose converter knows the newest models"
        )
    if not (Path(path) / CONVERTER).is_file():
        raise UserError(
            f"export.llama_cpp: {path}: no {CONVERTER} there; give the folder of a llama.cpp checkout"
        )
    return Path(path)


def command_of(
    checkout: Path,
    model: Path,
    target: Path,
    dtype: Literal["bfloat16", "float16", "float32"],
    is_projector: bool,
) -> list[str]:
    """What is run to convert the language model, or the image encoder with its projector."""
    own = [
        python
        for python in (checkout / ".venv/bin/python", checkout / "venv/bin/python")
        if python.is_file()
    ]
    return [
        str(own[0]) if own else sys.executable,
        str(checkout / CONVERTER),
        str(model),
        "--outfile",
        str(target),
        "--outtype",
        _TYPES[dtype],
        *(["--mmproj"] if is_projector else []),
    ]


def convert(
    checkout: Path,
    model: Path,
    target: Path,
    dtype: Literal["bfloat16", "float16", "float32"],
    is_projector: bool,
) -> None:
    """Run the converter; UserError with its last line where it fails or writes nothing."""
    command = command_of(checkout, model, target, dtype, is_projector)
    done = subprocess.run(
        command,
        capture_output=True,
        encoding="utf-8",
        errors="replace",
        timeout=_SECONDS,
        check=False,
    )
    if done.returncode or not target.is_file():
        last = next(
            (line for line in reversed((done.stdout + done.stderr).splitlines()) if line.strip()),
            "nothing",
        )
        needs = (
            f"; it needs the packages of {checkout / 'requirements.txt'}, here or in {checkout / '.venv'}"
            if "ModuleNotFoundError" in last
            else ""
        )
        raise UserError(
            f"{' '.join(command)}: exit status {done.returncode}, its last words: {last.strip()}{needs}; the merged model stands in {model}"
        )


class LlamaCpp:
    """llama-mtmd-cli as a recogniser: one process an image, the image as our own model gets it, the likeliest token each time."""

    image_mode: Literal["L", "RGB"] = "RGB"
    reads_pages = True

    def __init__(self, reader: Path, model: Path, projector: Path, like: VlmRecognizer) -> None:
        self.name = like.name
        self._command, self._like = (
            [str(reader), "-m", str(model), "--mmproj", str(projector)],
            like,
        )

    def read(self, images: Sequence[Pixels | Path | str]) -> list[Reading]:
        """See Recognizer; the reader says nothing of its confidence, so it is 0."""
        return [Reading(self._text(image), 0.0) for image in opened(images, self.image_mode)]

    def _text(self, image: Pixels) -> str:
        settings, generation = self._like.settings, self._like.generation
        prompt = (
            f"{settings.instruction}<__media__>"
            if settings.instruction_first
            else f"<__media__>{settings.instruction}"
        )
        with tempfile.TemporaryDirectory() as folder:
            file = Path(folder) / "image.png"
            Image.fromarray(self._like.prepared(image).permute(1, 2, 0).numpy()).save(file)
            limits = [
                "--image-min-tokens",
                "1",
                "--image-max-tokens",
                str(settings.max_length),
            ]  # it is of the right size already
            words = [
                "--image",
                str(file),
                *limits,
                "-p",
                prompt,
                "--temp",
                "0",
                "-n",
                str(generation.max_new_tokens),
                "--no-warmup",
                "--jinja",
            ]
            done = subprocess.run(
                [*self._command, *words],
                capture_output=True,
                encoding="utf-8",
                errors="replace",
                timeout=_SECONDS,
                check=False,
            )
        if done.returncode:
            raise UserError(
                f"{self._command[0]}: exit status {done.returncode}: {done.stderr.strip().splitlines()[-1:]}"
            )
        return normalise(done.stdout.strip())
