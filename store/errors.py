"""What can be wrong with a store. Each is also a ValueError, so callers need not know the class."""

DAMAGED = "the store is damaged; `reelbank store verify STORE --repair` mends what can be mended"


class StoreError(ValueError):
    """A store that is absent, foreign, damaged or asked for what it does not hold."""


class SpecMismatch(StoreError):
    """A store was made with another FeatureSpec; the message lists the differing fields."""
