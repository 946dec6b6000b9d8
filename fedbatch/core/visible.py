"""Text of anybody's on a terminal: what would steer the terminal is shown instead."""


def visible(text: object) -> str:
    r"""The text in one line, with control characters, line breaks and marks of direction as their escapes.

    >>> visible("runs/\x1b[2Ja\nb")
    'runs/\\x1b[2Ja\\nb'
    """
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in str(text))
