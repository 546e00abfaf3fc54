"""Files of a training run: metrics, checkpoints, snapshots, and the hashes by which a resume trusts them."""
