"""The recipe: stages in order, checked whole before anything is loaded, run, recorded, and resumed."""
