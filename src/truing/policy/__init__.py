"""The model: loading, attention over trees, log-probabilities of response tokens, reward heads, the reference."""
