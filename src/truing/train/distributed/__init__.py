"""Several processes as one: the process group, the divided model, the reference read by all ranks."""
