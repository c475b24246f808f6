"""The labelled sets that reelbank renders itself."""
