"""Damage: corrected class fractions and severity per animal, and what a treatment does to them."""
