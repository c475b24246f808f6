"""HMDB51: pooled features and networks from scratch as published, on their random split and without its leak."""

from __future__ import annotations

from reelbank.heads.recipes.hmdb51 import beyond, from_scratch, googlenet

RECIPES = (*googlenet.RECIPES, *from_scratch.RECIPES, *beyond.RECIPES)
