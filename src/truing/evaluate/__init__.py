"""Measurements of a model, each with its interval, as findings."""
