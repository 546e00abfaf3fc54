"""What a training run leaves on disk: metrics, checkpoints, snapshots, and what a resume believes of them."""
