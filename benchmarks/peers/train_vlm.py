"""Our own trainer without Ray.

`fit` on a run's folder, with its loader, logs and engine; options: config, overrides, steps.
"""

import contextlib
import json

from meter import Enough, Request
from vlm_meter import Bench, Trained, Watch

from ocr.files import write_json
from trainers.loop.loop import fit
from trainers.loop.run_state import RunContext
from trainers.runs.identity import environment, identity


def measure(request: Request) -> Trained:
    """Train so many steps; each step's loss is read from metrics.jsonl."""
    bench = Bench(request)
    config, run_dir = bench.config, bench.config.local_run_dir
    run_dir.mkdir(parents=True)
    run = identity(config, bench.data.fingerprints)
    write_json(run_dir / "run.json", {"run": run})
    watch = Watch(bench)
    with contextlib.suppress(Enough):
        fit(config, bench.task, RunContext(run_dir, run, 1, environment(config, 1, "cpu", "fp32")))
    return watch.result(
        [
            json.loads(line)["loss"]
            for line in (run_dir / "metrics.jsonl").read_text(encoding="utf-8").splitlines()
        ]
    )
