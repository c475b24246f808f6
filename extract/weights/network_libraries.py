"""Imported for its imports: the fork server loads torchvision here once, and every worker that is forked has it."""

from reelbank.extract.weights import torchvision_shim

torchvision_shim.ensure()
