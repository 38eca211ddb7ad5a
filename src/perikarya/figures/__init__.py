"""Figures of a finished run, as a paper prints them. Needs no torch and no display."""
