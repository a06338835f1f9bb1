"""Model families: what can be trained. A family's package is imported on demand.

A CTC run therefore never waits for transformers.
"""

from trainers.config import TrainConfig
from trainers.families.family import Family

__all__ = ["Family", "family_of"]


def family_of(config: TrainConfig) -> Family:
    """Return the family that the config's network belongs to."""
    if config.family == "vlm":
        from trainers.families.vlm.family import VLM

        return VLM
    from trainers.families.ctc.family import CTC

    return CTC
