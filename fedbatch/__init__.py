"""fedbatch: federated learning with large global batches, on Flower and PyTorch."""

from importlib import import_module
from typing import Any

__version__ = "0.1.0"
__all__ = ["critical", "load_rounds", "load_runs"]
_MODULES = {"critical": "fedbatch.results.critical"}


def __getattr__(name: str) -> Any:
    """What reads runs, imported when it is asked for: the command line needs none of it."""
    if name in __all__:
        return getattr(import_module(_MODULES.get(name, "fedbatch.results.load")), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
