"""Retraining: a recogniser is trained further on corrections, and a gate decides about it."""
