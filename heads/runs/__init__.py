"""One training as a run directory: made, resumed, read, applied to other clips."""
