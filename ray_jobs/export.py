"""Export a run again: its bundle with other backends or another decoding, or another form.

python ray_jobs/export.py runs/odia-ctc format=onnx decoding.method=beam
python ray_jobs/export.py runs/odia-ctc average=3 of=last          # mean of three checkpoints
python ray_jobs/export.py runs/tiny-vlm format=merged              # base and adapter as one model
python ray_jobs/export.py runs/tiny-vlm format=gguf export.llama_cpp=~/llama.cpp
python ray_jobs/export.py runs/tiny-vlm format=hub repo_id=OWNER/NAME private=true

Also upload=bundle|merged|gguf (with format=hub), output=FOLDER, data_name=NAME, and any setting of
the run. Every exported form is read with before it is kept.
"""

from argparse import Namespace

from ocr.mirror import copied
from ocr.system_errors import reported
from ray_jobs import command
from trainers.config.export_request import ExportRequest


def main(arguments: Namespace) -> None:
    """Export and print the CER of each backend."""
    from trainers.runs.export import export_run

    advice = "set output to a folder that you may write"
    with reported(arguments.run, advice), copied(arguments.run) as run_dir:
        exported = export_run(run_dir, arguments.overrides)
    for backend, cer in exported.bundle.backends.items():
        is_default = backend == exported.bundle.default_backend("cpu")
        print(f"{backend:<12}CER {cer:.2%}{'  (default on a CPU)' if is_default else ''}")
    best_path = f"best path CER {exported.greedy.counts.cer:.2%}, " if exported.greedy else ""
    error = exported.reliability.expected_error
    print(f"{best_path}expected calibration error {error:.1%}, {exported.bundle.path}")


if __name__ == "__main__":
    command.run(
        main,
        __doc__,
        ExportRequest,
        run={"metavar": "RUN"},
        overrides={"nargs": "*", "metavar": "key=value"},
    )
