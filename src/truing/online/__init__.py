"""Batches of the policy's own responses: prompts, generation, scores, advantages, and the history of rounds."""
