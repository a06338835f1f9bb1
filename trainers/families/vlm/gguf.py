"""A trained vision-language model for llama.cpp: two files, language model and image encoder.

The converter of the user's own checkout converts the merged model. Where the checkout has been
built, llama-mtmd-cli reads the evaluated samples from those files and the gate compares; else the
card says that nothing was read.
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
from ocr.errors import UserError, last_line
from ocr.evaluation import evaluate
from ocr.images import Pixels
from ocr.recognizers.recognizer import PixelReader
from ocr.recognizers.vlm.reading import VlmRecognizer
from ocr.sample import Reading
from ocr.text import normalise
from trainers.families.export_gate import Exported, require_agreement
from trainers.families.model_card import MODEL_CARD, card_text
from trainers.families.vlm.export import export_merged, scratch_folder
from trainers.families.vlm.task import VlmTask

CONVERTER, READER = "convert_hf_to_gguf.py", "llama-mtmd-cli"
_TYPES = {"bfloat16": "bf16", "float16": "f16", "float32": "f32"}
_SECONDS = 7200


def export_gguf(task: VlmTask, path: Path, card: Mapping[str, Any]) -> Exported:
    """Merge, convert, and read with the converted files.

    Raises UserError without a checkout, or with the converter's last line of output.
    """
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
    with scratch_folder(path) as folder:
        model, projector = folder / f"{name}.gguf", folder / f"mmproj-{name}.gguf"
        convert(checkout, merged.bundle.path, model, settings.merged_dtype, is_projector=False)
        convert(checkout, merged.bundle.path, projector, settings.merged_dtype, is_projector=True)
        files = (model, projector)
        exported = _read_with(checkout, files, task, replace(merged, bundle=about))
        write_bundle(exported.bundle, {MODEL_CARD: card_text(exported.bundle).encode()}, folder)
    shutil.rmtree(merged.bundle.path)
    return exported


def _read_with(
    checkout: Path, files: tuple[Path, Path], task: VlmTask, merged: Exported
) -> Exported:
    """Read with the GGUF files where llama.cpp was built, and compare with the merged model."""
    reader = checkout / "build" / "bin" / READER
    if not reader.is_file():
        print(
            f"{reader}: not built, so nothing was read with the GGUF files; their CER is unknown",
            flush=True,
        )
        return merged
    recognizer = LlamaCpp(reader, *files, task.recognizer)
    read = evaluate(recognizer, task.validation_data, task.read_indices)
    most = task.config.export.max_cer_difference
    require_agreement(READER, read, merged.evaluation, most)
    bundle = replace(merged.bundle, backends={READER: read.counts.cer})
    return replace(merged, evaluation=read, bundle=bundle)


def checkout_of(path: str | None) -> Path:
    """Return the folder that has the converter; UserError where there is none."""
    if path is None:
        raise UserError(
            "format=gguf needs export.llama_cpp=FOLDER, a checkout of llama.cpp "
            "(github.com/ggml-org/llama.cpp), whose converter knows the newest models"
        )
    if not (Path(path) / CONVERTER).is_file():
        raise UserError(
            f"export.llama_cpp: {path}: no {CONVERTER} in this folder; "
            "give the folder of a llama.cpp checkout"
        )
    return Path(path)


def command_of(
    checkout: Path,
    model: Path,
    target: Path,
    dtype: Literal["bfloat16", "float16", "float32"],
    is_projector: bool,
) -> list[str]:
    """Return the command that converts the language model, or the image encoder with projector."""
    pythons = (checkout / ".venv/bin/python", checkout / "venv/bin/python")
    own = [python for python in pythons if python.is_file()]
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
    done = _run(command)
    if done.returncode or not target.is_file():
        output = done.stdout + done.stderr
        last = last_line(output) if output.strip() else "nothing"
        needs = ""
        if "ModuleNotFoundError" in last:
            needs = (
                f"; it needs the packages of {checkout / 'requirements.txt'}, "
                f"here or in {checkout / '.venv'}"
            )
        raise UserError(
            f"{' '.join(command)}: exit status {done.returncode}, its last line: {last}{needs}; "
            f"the merged model is in {model}"
        )


def _run(command: Sequence[str]) -> "subprocess.CompletedProcess[str]":
    return subprocess.run(
        command,
        capture_output=True,
        encoding="utf-8",
        errors="replace",
        timeout=_SECONDS,
        check=False,
    )


class LlamaCpp(PixelReader):
    """llama-mtmd-cli as a recogniser: one process per image, the likeliest token each time.

    The image is prepared as for our own model.
    """

    image_mode: Literal["L", "RGB"] = "RGB"
    reads_pages = True

    def __init__(self, reader: Path, model: Path, projector: Path, like: VlmRecognizer) -> None:
        self.name = like.name
        self._command = [str(reader), "-m", str(model), "--mmproj", str(projector)]
        self._like = like

    def read_pixels(self, images: Sequence[Pixels]) -> list[Reading]:
        """Read each image; the confidence is 0, since the program gives none."""
        return [Reading(self._text(image), 0.0) for image in images]

    def _text(self, image: Pixels) -> str:
        with tempfile.TemporaryDirectory() as folder:
            file = Path(folder) / "image.png"
            Image.fromarray(self._like.prepared(image).permute(1, 2, 0).numpy()).save(file)
            done = _run([*self._command, *self._arguments(file)])
        if done.returncode:
            raise UserError(
                f"{self._command[0]}: exit status {done.returncode}: {last_line(done.stderr)}"
            )
        return normalise(done.stdout.strip())

    def _arguments(self, image: Path) -> list[str]:
        settings, generation = self._like.settings, self._like.generation
        parts = [settings.instruction, "<__media__>"]
        prompt = "".join(parts if settings.instruction_first else reversed(parts))
        # the image has the right size already
        limits = ["--image-min-tokens", "1", "--image-max-tokens", str(settings.max_length)]
        length = ["-n", str(generation.max_new_tokens)]
        sampling = ["--temp", "0", *length, "--no-warmup", "--jinja"]
        return ["--image", str(image), *limits, "-p", prompt, *sampling]
