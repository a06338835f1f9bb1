"""Sweeps on Ray Tune: a trial is the base config with other values.

Results are in a ledger of our own, from which a killed sweep resumes.
"""
