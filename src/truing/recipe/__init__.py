"""The language of recipes: text becomes a checked plan, without torch."""
