"""The labelled video set that reelbank renders itself."""
