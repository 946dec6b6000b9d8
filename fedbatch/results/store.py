"""The run folder: whose it is, resolved config, one row a round as it goes, and a summary at the end.

Rows go to ``rounds.jsonl`` at once, so that a killed run keeps them, and to ``rounds.parquet`` when the run ends. None
is kept in memory.
"""

import os
import platform
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict
from importlib import metadata
from pathlib import Path
from typing import Any

from omegaconf import OmegaConf

import fedbatch
from fedbatch.config import trust
from fedbatch.config.schema import RunConfig
from fedbatch.core.files import to_json, write_atomically
from fedbatch.core.find_columns import named
from fedbatch.core.scores import Scoring
from fedbatch.results import own, record
from fedbatch.results.record import Row
from fedbatch.results.record import read_rows as read_rows

ACCURACY = Scoring()
PACKAGES = ("torch", "flwr", "hydra-core", "numpy", "polars")


class RunStore:
    """Files of one run.

    Args:
        folder: the run folder, made if needed.
        config: written resolved as ``config.yaml``.
        run: id of the run.
        spent: what a run that breaks off says of its privacy.
        scoring: what its scores are.
    """

    def __init__(
        self,
        folder: Path,
        config: RunConfig,
        run: str = "",
        spent: Callable[[], Mapping[str, Any]] | None = None,
        scoring: Scoring = ACCURACY,
    ):
        self.folder = folder
        self.config = config
        self._run = run
        self._spent = spent or dict
        self._scoring = scoring
        self._record = folder / record.FILE
        self._missing: list[int] = []
        self._last: Row | None = None
        self._tested: Row | None = None
        folder.mkdir(parents=True, exist_ok=True)
        values = asdict(config) | {"resume": None, "overwrite": False}
        content = OmegaConf.to_yaml(OmegaConf.create(values)).encode()
        write_atomically(folder / own.FILE, content)
        if not all(map(trust.is_part, trust.named(values))):
            own.remember(content)

    @contextmanager
    def recording(self, from_round: int, totals: Mapping[str, Any] | None = None) -> Iterator[None]:
        """Open the record at ``from_round``, dropping later rows of an earlier attempt; close it whatever happens.

        Args:
            from_round: rounds that are done.
            totals: of these, to tell whether the record is of this run.

        Raises:
            ConfigError: the record is of another run.
        """
        self._missing = record.reconcile(self._record, from_round, totals or {}, self._run)
        self._last, self._tested = record.last_rows(self._record)
        self._write_summary({"status": "running"})
        status, error = "failed", {}
        try:
            with open(self._record, "a") as self._file:
                yield
            status = "finished"
        except KeyboardInterrupt:
            status = "interrupted"
            raise
        except Exception as reason:
            error = {"error": (str(reason) or type(reason).__name__).splitlines()[0]}
            raise
        finally:
            record.write_parquet(self._record, self.folder / "rounds.parquet", {"run": self._run})
            if status != "finished":
                self._write_summary({"status": status, **error, **self.last_values(), **self._spent()})

    def append(self, row: Row) -> None:
        """Add the row of one round."""
        self._last, self._tested = row, row if row["test_loss"] == row["test_loss"] else self._tested
        self._file.write(record.sealed(row, self._run) + "\n")
        self._file.flush()

    @property
    def is_evaluated(self) -> bool:
        """Whether the last round was."""
        return self._last is not None and self._last is self._tested

    def last_values(self) -> Row:
        """The last row, with the metrics of the last round that was evaluated."""
        last, tested = self._last, self._tested or self._last
        if last is None or tested is None:
            return {"rounds": 0}
        found = {name: last[name] for name in named("summary") if name in last and name != "epsilon"}
        splits, scores = ("test", "training_set", "average_test"), ("loss", *self._scoring.names)
        evaluated = [f"{split}_{score}" for score in scores for split in splits]
        return found | {name: tested[name] for name in evaluated if name in tested}

    def finish(
        self,
        ended: Mapping[str, Any],
        guarantee: Mapping[str, Any] | None = None,
        calibration: Mapping[str, Any] | None = None,
        scores: Mapping[str, Any] | None = None,
    ) -> None:
        """Write the summary of a run that came to its end.

        Args:
            ended: how it stands, in plain values.
            guarantee: of a private run.
            calibration: scores before and after a temperature.
            scores: of the last parameters, where the last round was not evaluated.
        """
        self._write_summary(
            {
                "status": "finished",
                **self.last_values(),
                **(scores or {}),
                **ended,
                **({"epsilon": guarantee["epsilon"], "privacy": guarantee} if guarantee else {}),
                **({"calibration": dict(calibration)} if calibration else {}),
            }
        )

    def _write_summary(self, values: Mapping[str, Any]) -> None:
        summary = {
            **values,
            **self._scoring.summary,
            **({"missing_rounds": record.ranges(self._missing)} if self._missing else {}),
            **({"run_id": self._run} if self._run else {}),
            "seed": self.config.seed,
            "machine": {"system": platform.platform(), "cpus": os.cpu_count(), "device": self.config.device},
            "versions": {
                "fedbatch": fedbatch.__version__,
                "python": platform.python_version(),
                **{name: metadata.version(name) for name in PACKAGES},
            },
        }
        write_atomically(self.folder / "summary.json", (to_json(summary, indent=2) + "\n").encode())
