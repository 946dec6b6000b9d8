"""Trackers: other tools that get each row of a run's record."""

from fedbatch.trackers.mlflow import MLflow
from fedbatch.trackers.profiler import Profiler
from fedbatch.trackers.tensorboard import TensorBoard
from fedbatch.trackers.trackio import Trackio
from fedbatch.trackers.wandb import WandB

__all__ = ["MLflow", "Profiler", "TensorBoard", "Trackio", "WandB"]
