"""The commands of the command line that need no recipe, and the options that several share."""
