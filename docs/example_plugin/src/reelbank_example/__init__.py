"""Plug-ins for reelbank; `pyproject.toml` names them."""
