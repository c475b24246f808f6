"""What can be wrong with a training job. Also a ValueError, so callers need not know the class."""


class TrainingError(ValueError):
    """A job that cannot be trained or a run that cannot be used: what was asked, what was found, what to do."""
