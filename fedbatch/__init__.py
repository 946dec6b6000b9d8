"""fedbatch: federated learning with large global batches, on Flower and PyTorch."""

from importlib import import_module
from typing import Any

__version__ = "0.1.0"
__all__ = ["load_rounds", "load_runs"]


def __getattr__(name: str) -> Any:
    """Tables of runs, imported when they are asked for: the command line needs none of it."""
    if name in __all__:
        return getattr(import_module("fedbatch.results.load"), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    return [*__all__, "__version__"]
