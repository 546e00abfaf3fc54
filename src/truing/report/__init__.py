"""What do we tell others? One page for a run, one card for a model."""
