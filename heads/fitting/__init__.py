"""How a head is trained: losses, optimisers, epochs."""
