"""What went wrong in training, told from what a stage left: over-optimisation of a proxy."""
