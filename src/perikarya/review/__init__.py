"""A page on this machine to look at cells, correct labels and read a second time without seeing any."""
