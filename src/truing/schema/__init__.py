"""The signature is the schema: what may be written for an option is read from the function that takes it."""
