"""The model answers: the in-process engine, rows that are being written, draws, experience on disk."""
