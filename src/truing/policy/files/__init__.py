"""A model's folder as files, read without torch: what it may hold, what it asks for, what it came from."""
