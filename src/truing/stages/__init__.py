"""What a recipe can name, a file a stage, and what these share."""
