"""One loop, for every method: batches in, updates out, everything it did on disk."""
