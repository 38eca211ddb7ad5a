"""Networks, their fourth channel and their weights."""
