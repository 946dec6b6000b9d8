"""MLflow: metrics and parameters, offline by default."""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from fedbatch.results.folder import leaves
from fedbatch.trackers.following import Log, Row, need, scalars

LONGEST_PARAMETER = 500


class MLflow:
    """Logs to a server, or to files beside the run.

    Args:
        tracking_uri: as MLflow takes it, e.g. ``http://127.0.0.1:5000``; None: an SQLite file in the run's folder.
        experiment: its name in MLflow.
    """

    def __init__(self, tracking_uri: str | None = None, experiment: str = "fedbatch"):
        need("mlflow", "mlflow")
        self._tracking_uri, self._experiment = tracking_uri, experiment

    @contextmanager
    def following(self, folder: Path, config: Mapping[str, Any], from_round: int) -> Iterator[Log]:
        """One MLflow run, named after the run's folder; steps are rounds that are done."""
        import mlflow

        mlflow.set_tracking_uri(self._tracking_uri or f"sqlite:///{folder.resolve() / 'mlflow.db'}")
        mlflow.set_experiment(self._experiment)
        with mlflow.start_run(run_name=folder.name):
            mlflow.set_tag("from_round", from_round)
            mlflow.log_params({key: str(value)[:LONGEST_PARAMETER] for key, value in leaves(config)})

            def write(row: Row) -> None:
                mlflow.log_metrics(scalars(row), step=row["rounds"])

            yield write
