"""Sweeps on Ray Tune: a trial is the base config with other values; what was found lies in a ledger of our own, which a killed sweep goes on from."""
