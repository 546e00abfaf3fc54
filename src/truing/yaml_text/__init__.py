"""YAML 1.2: the one reader and the one writer of recipes, rules files and model cards."""
