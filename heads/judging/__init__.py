"""Pure functions that judge predictions: metrics, baselines, intervals, verdicts."""
