"""The one exception that means "you can mend this": a script prints it without a traceback and exits 2."""


class UserError(ValueError):
    """A mistake in a setting, a file or an argument; the message says where, what was found and what to do."""
