"""An experiment: tasks = models x seeds x folds; run them, collect them, say how far they are."""
