"""How gradients meet: one module per way."""
