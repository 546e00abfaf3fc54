"""Reports for others: one page for a run, one card for a model."""
