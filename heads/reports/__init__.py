"""How results are shown: pages, pictures."""
