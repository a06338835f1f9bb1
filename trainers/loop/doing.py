"""What a worker is doing now, for a watchdog that must not take long work for a hang.

In STEPS the step count must move. The start, the first step (which may compile or download), an
evaluation, a checkpoint and a halt may take any time; a process in them must still be alive.
"""

from collections.abc import Iterator
from contextlib import contextmanager

START, STEPS, FIRST_STEP, END = "start", "steps", "first step", "end"
EVALUATION, CHECKPOINT, HALTED = "evaluation", "checkpoint", "halt"


class Doing:
    """One worker's word. The loop writes it; a thread (trainers/ray_pulse.py) passes it on."""

    def __init__(self) -> None:
        self.what, self.steps = START, 0  # steps that this process has taken

    @contextmanager
    def step(self) -> Iterator[None]:
        """Say that an optimizer step is taken; the first of a process is one that may be long."""
        self.what = STEPS if self.steps else FIRST_STEP
        yield
        self.steps += 1
        self.what = STEPS

    @contextmanager
    def long(self, what: str) -> Iterator[None]:
        """Say that something goes on that may take any time."""
        before, self.what = self.what, what
        yield
        self.what = before
