"""Numbers about a run and their files; the name of a command is the name of its file."""
