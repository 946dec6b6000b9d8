"""What the commands' own arguments have in common."""

import math
from argparse import ArgumentParser, ArgumentTypeError
from collections.abc import Callable
from typing import NoReturn

from fedbatch.core.errors import ConfigError


class Arguments(ArgumentParser):
    """The arguments of ``fedbatch COMMAND``; what is wrong is one line, as everywhere."""

    def __init__(self, command: str):
        super().__init__(add_help=False, allow_abbrev=False)
        self._command = command

    def error(self, message: str) -> NoReturn:
        """Refuse.

        Raises:
            ConfigError: always.
        """
        raise ConfigError(f"{message}; see fedbatch {self._command} --help")


def positive(example: str) -> Callable[[str], float]:
    """A positive number, as the type of an argument; ``example`` is for the message.

    >>> positive("0.5")("2")
    2.0
    """

    def number(text: str) -> float:
        try:
            value = float(text)
        except ValueError:
            value = 0.0
        if not 0 < value < math.inf:
            raise ArgumentTypeError(f"give a positive number, e.g. {example} (got {text!r})")
        return value

    return number
