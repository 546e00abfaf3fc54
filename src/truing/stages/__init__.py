"""The stages that a recipe can name, a file each, and what they share."""
