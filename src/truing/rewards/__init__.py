"""Responses are scored: reward functions, models and verifiers, how they are called, combined and kept apart."""
