"""What the outside asks of a run between two steps: a checkpoint now, or a checkpoint and a halt.

A machine that is about to go, or a person who ends the command, leaves seconds. The first worker
hears of it; the sum of every step tells the others, so that all save the same step.
"""

NOTHING, SAVE, HALT = 0.0, 1.0, 2.0


class Notices:
    """The notices of a run that gets none; trainers/ray_notices.py has Ray's."""

    def asked(self) -> float:
        """Return NOTHING, SAVE or HALT; asked once a step, of the first worker alone."""
        return NOTHING

    def saved(self, step: int) -> None:
        """Hear that the checkpoint of `step`, which HALT asked for, is on the disk."""

    def seconds_to_halt(self) -> float:
        """Return for how long to take no step after HALT; then the run goes on."""
        return 0.0
