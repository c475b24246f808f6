"""Many trainings of one job: the grid, its executors, what validation prefers."""
