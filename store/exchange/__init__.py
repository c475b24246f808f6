"""Stores as HDF5, .npy files and safetensors, out and in."""
