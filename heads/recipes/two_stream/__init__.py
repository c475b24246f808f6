"""Frame net, flow net and their mid fusion on 12 actions: the published tables, and what improves on them."""

from __future__ import annotations

from reelbank.heads.recipes.two_stream import beyond, rendered, tables

RECIPES = (*tables.RECIPES, *beyond.RECIPES, *rendered.RECIPES)
