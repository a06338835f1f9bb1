"""A recogniser trained further on what people corrected, and the gate that it passes before it may read for others."""
