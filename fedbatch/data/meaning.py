"""What the numbers of a data set stand for, in a form in which two ends can see that they mean the same.

A class is a number by its place among the labels found, and a category by its place among the texts found. A node with
data of its own finds them by itself: with other labels of the same number it would train on other classes, unnoticed.
"""

import hashlib
import json
from collections.abc import Iterable, Mapping

NUMBERS, TEXTS = "numbers", "texts"
LONGEST = 10**6
"""Characters of what another end may say."""
SHOWN = 40
"""Characters of it that are shown."""


def of_values(values: Iterable[object], what: str) -> str:
    """How many values there are, and a digest of all in their order, which is equal for the number 1 and the text.

    >>> of_values([0, 1], "classes") == of_values(["0", "1"], "classes") != of_values([1, 2], "classes")
    True
    >>> of_values(["benign", "malignant"], "classes")
    '2 classes (a840a00b)'
    """
    listed = [str(value) for value in values]
    digest = hashlib.blake2b(json.dumps(listed).encode(), digest_size=4).hexdigest()
    return f"{len(listed)} {what} ({digest})"


def written(meaning: Mapping[str, str]) -> str:
    """A meaning as a text for another end."""
    return json.dumps(dict(meaning))


def difference(own: Mapping[str, str], said: str) -> str:
    """The first column that stands for something else at the other end, in words; empty if there is none.

    Only what both ends name is compared: a text that is no meaning names nothing.

    >>> difference({"label": "2 classes (ab)", "age": "numbers"}, '{"age": "3 categories (cd)", "town": "texts"}')
    'age is 3 categories (cd) there and numbers here'
    """
    try:
        theirs = json.loads(said) if len(said) <= LONGEST else None
    except (ValueError, RecursionError):
        theirs = None
    if not isinstance(theirs, dict):
        return ""
    for name, value in own.items():
        if name in theirs and theirs[name] != value:
            return f"{name} is {str(theirs[name])[:SHOWN]} there and {value} here"
    return ""
