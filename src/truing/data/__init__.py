"""Records become batches: files are read, split, rendered into token ids and packed. Nothing is imported here, so
that reading and splitting data needs no torch."""
