"""First-person actions: the published study of Ego-RNN and what was tried on it, and what its authors propose."""

from __future__ import annotations

from reelbank.heads.recipes.egocentric import beyond, combined, figures, grids, rendered

RECIPES = (*figures.RECIPES, *grids.RECIPES, *combined.RECIPES, *beyond.RECIPES, *rendered.RECIPES)
