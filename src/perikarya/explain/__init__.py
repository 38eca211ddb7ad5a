"""Where the trained networks of a run look: maps, figures and the share of each map inside the cell."""
