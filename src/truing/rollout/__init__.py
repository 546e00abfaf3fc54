"""The model answers and is scored."""
