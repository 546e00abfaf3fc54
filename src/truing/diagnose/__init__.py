"""Diagnosis of a finished stage from its files: over-optimisation of a proxy."""
