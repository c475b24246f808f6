"""From a clip of the manifest to what a backbone reads: sources, sampling, views, preprocessing."""
