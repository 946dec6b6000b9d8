"""fedbatch: federated learning with large global batches, on Flower and PyTorch."""

from importlib import import_module
from importlib.metadata import PackageNotFoundError, version
from typing import TYPE_CHECKING, Any

from fedbatch.core import moved, telemetry

if TYPE_CHECKING:
    __version__: str
    from fedbatch.advising.advise import advise
    from fedbatch.api import Result, plan, run
    from fedbatch.auditing.attack import audit
    from fedbatch.results.critical import critical
    from fedbatch.results.load import load_rounds, load_runs
    from fedbatch.strategy import NoiseScale
    from fedbatch.trained import evaluate, export, load_model

moved.install()
telemetry.off()
__all__ = [
    "NoiseScale",
    "Result",
    "advise",
    "audit",
    "critical",
    "evaluate",
    "export",
    "load_model",
    "load_rounds",
    "load_runs",
    "plan",
    "run",
]

_PLACES = {
    "NoiseScale": "fedbatch.strategy",
    "Result": "fedbatch.api",
    "advise": "fedbatch.advising.advise",
    "audit": "fedbatch.auditing.attack",
    "critical": "fedbatch.results.critical",
    "evaluate": "fedbatch.trained",
    "export": "fedbatch.trained",
    "load_model": "fedbatch.trained",
    "load_rounds": "fedbatch.results.load",
    "load_runs": "fedbatch.results.load",
    "plan": "fedbatch.api",
    "run": "fedbatch.api",
}


def __getattr__(name: str) -> Any:
    """Public names, imported when they are asked for: the command line answers without most of it."""
    if name == "__version__":
        try:
            return version("fedbatch")
        except PackageNotFoundError:  # its folder alone was put on the path, as a SuperNode may do
            return "unknown"
    if name in _PLACES:
        return getattr(import_module(_PLACES[name]), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    return [*__all__, "__version__"]
