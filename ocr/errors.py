"""The exceptions that a script prints without a traceback, and the lines of other errors."""


class UserError(ValueError):
    """A mistake in a setting, a file or an argument: where, what was found, what to do.

    Scripts print it and end with exit status 2.
    """


class ImageRefused(UserError):
    """An image that cannot or must not be decoded; `reason` is a short countable name."""

    def __init__(self, where: str, reason: str, detail: str) -> None:
        super().__init__(f"{where}: {reason}: {detail}")
        self.where, self.reason, self.detail = where, reason, detail


class GivenUp(RuntimeError):
    """Processes failed more often than `max_failures`; scripts end with exit status 1.

    Checkpoints are intact, so the same command resumes.
    """


class Terminated(KeyboardInterrupt):
    """The process was asked to end (SIGTERM), and its run is saved; scripts end with 143."""


def first_line(problem: BaseException | str) -> str:
    """Return the first line of an error that says something, else its class."""
    return _line(problem, str(problem).splitlines())


def last_line(problem: BaseException | str) -> str:
    """Return the last line of an error that says something, else its class."""
    return _line(problem, str(problem).splitlines()[::-1])


def _line(problem: BaseException | str, lines: list[str]) -> str:
    return next((line.strip() for line in lines if line.strip()), type(problem).__name__)
