"""Records become token ids: chat templates, run as a stranger's programs, and the line between prompt and response."""
