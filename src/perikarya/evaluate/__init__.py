"""Numbers out: metrics, intervals and tests, tidy tables. Needs no torch."""
