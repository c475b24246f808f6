"""Decoding: which frames a video has, how to reach those that are wanted, and whether it is whole."""
