"""Standard output that a reader may close, as ``fedbatch ... | head`` does, while the run goes on."""

import os
from typing import Any, TextIO


class Unbroken:
    """Writes to a stream until it breaks, and then nowhere."""

    def __init__(self, stream: TextIO):
        self._stream = stream

    def write(self, text: str) -> int:
        """As a stream does it."""
        try:
            return self._stream.write(text)
        except BrokenPipeError:
            return self._broken(text)

    def flush(self) -> None:
        """As a stream does it."""
        try:
            self._stream.flush()
        except BrokenPipeError:
            self._broken("")

    def _broken(self, text: str) -> int:
        # The descriptor itself, or Python complains of it when it ends.
        with open(os.devnull, "w") as nowhere:
            os.dup2(nowhere.fileno(), self._stream.fileno())
        return len(text)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._stream, name)
