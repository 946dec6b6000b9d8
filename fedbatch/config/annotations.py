"""Annotations of a key: whether a value from YAML fits one, and what it is in words."""

import inspect
from types import NoneType, UnionType
from typing import Any, Union, get_args, get_origin

WORDS = {int: "a whole number", float: "a number", bool: "true or false", str: "text", NoneType: "null"}


def in_words(hint: Any) -> str:
    """An annotation as people say it.

    >>> in_words(float | None), in_words(int), in_words(tuple[float, float])
    ('a number or null', 'a whole number', 'tuple[float, float]')
    """
    if get_origin(hint) in (Union, UnionType):
        return " or ".join(map(in_words, get_args(hint)))
    if get_origin(hint) is list:
        return "a list"
    return WORDS.get(hint) or inspect.formatannotation(hint)


def fits(value: Any, hint: Any) -> bool:
    """Whether a value from YAML may be meant by an annotation; what is not plain is left to the target.

    >>> [fits(value, float | None) for value in (1, 0.5, None, "abc", float("nan"))]
    [True, True, True, False, False]
    """
    kinds, inner = get_origin(hint), get_args(hint)
    if kinds in (Union, UnionType):
        return any(fits(value, each) for each in inner)
    if kinds is tuple and Ellipsis not in inner:
        whole = isinstance(value, list | tuple) and len(value) == len(inner)
        return whole and all(map(fits, value, inner))
    if hint in (int, float):
        number = isinstance(value, int | hint) and not isinstance(value, bool)
        return number and value == value
    if hint in (Any, inspect.Parameter.empty) or not isinstance(hint, type):
        return True
    return isinstance(value, hint) if hint in (bool, str, NoneType) else not isinstance(value, str | int | float | None)
