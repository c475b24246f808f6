"""One run of `featurize`: what is to do, workers and what they send, batches, commits, the report."""
