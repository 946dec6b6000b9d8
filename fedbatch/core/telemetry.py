"""Nobody is told that a run takes place: what the libraries below would report is off unless the user turned it on."""

import os

OFF = {
    "FLWR_TELEMETRY_ENABLED": "0",
    "RAY_USAGE_STATS_ENABLED": "0",
    "HF_HUB_DISABLE_TELEMETRY": "1",
    "MLFLOW_DISABLE_TELEMETRY": "true",
}
"""Read by Flower, Ray, the hub and MLflow when they are imported, and by the processes that they start."""


def off() -> None:
    """Set what is not set yet. Processes of somebody else's, as a SuperNode, need it in their own environment."""
    for name, value in OFF.items():
        os.environ.setdefault(name, value)
