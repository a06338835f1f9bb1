"""A run's bundle again: with ONNX backends, another decoding, or the mean of several checkpoints. Every backend is read with before it is written.

python ray_jobs/export.py runs/odia-ctc format=onnx decoding.method=beam
python ray_jobs/export.py runs/odia-ctc average=3 of=last
"""

from argparse import Namespace
from pathlib import Path

from ray_jobs import command


def main(arguments: Namespace) -> None:
    """Export and print the CER of each backend."""
    from trainers.runs.export import export_run

    exported = export_run(arguments.run, arguments.overrides)
    for backend, cer in exported.bundle.backends.items():
        print(
            f"{backend:<12}CER {cer:.2%}{'  (default on a CPU)' if backend == exported.bundle.default_backend('cpu') else ''}"
        )
    best_path = f"best path CER {exported.greedy.counts.cer:.2%}, " if exported.greedy else ""
    print(
        f"{best_path}expected calibration error {exported.reliability.expected_error:.1%}, {exported.bundle.path}"
    )


if __name__ == "__main__":
    command.run(
        main,
        __doc__,
        run={"type": Path, "metavar": "RUN"},
        overrides={"nargs": "*", "metavar": "key=value"},
    )
