"""Calories from video: the published study, its rows, and rows beyond it."""

from __future__ import annotations

from reelbank.heads.recipes.calories import beyond, published_figures, published_tables

RECIPES = (*published_tables.RECIPES, *published_figures.RECIPES, *beyond.RECIPES)
