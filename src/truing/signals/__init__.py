"""Signals: what objectives read of a batch and a policy, each computed once."""
