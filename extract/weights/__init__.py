"""Weights of backbones: finding and fetching files, reading checkpoints, calibrating random ones."""
