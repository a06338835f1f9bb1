"""The training loop, what it asks of a model family, and the only code that knows Ray Train."""
