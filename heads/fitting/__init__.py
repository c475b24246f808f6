"""Heads that are fitted in one go, and the choice among them."""
