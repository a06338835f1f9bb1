"""Documents in, text with positions out."""
