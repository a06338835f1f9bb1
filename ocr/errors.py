"""The two exceptions that a script prints without a traceback: yours to mend (exit status 2), and given up (1)."""


class UserError(ValueError):
    """A mistake in a setting, a file or an argument; the message says where, what was found and what to do."""


class GivenUp(RuntimeError):
    """Processes died more often than was to be survived; what was saved stands, and the same command goes on from it."""
