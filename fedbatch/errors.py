"""The two ways in which a run does not work out; each text is one line for people."""


class ConfigError(ValueError):
    """A run cannot start as configured; the text names the field and the remedy."""


class RunFailedError(RuntimeError):
    """A run cannot go on; the text says why."""
