"""The run folder: resolved config, one row a round as it goes, and a summary at the end.

Rows go to ``rounds.jsonl`` at once, so that a killed run keeps them, and to ``rounds.parquet`` when the run ends.
"""

import io
import json
import os
import platform
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict
from importlib import metadata
from pathlib import Path
from typing import Any

import polars as pl
from omegaconf import OmegaConf

import fedbatch
from fedbatch.config import RunConfig
from fedbatch.state import ServerState, params_sha256

PACKAGES = ("torch", "flwr", "hydra-core", "numpy", "polars")


class RunStore:
    """Files of one run.

    Args:
        folder: the run folder, made if needed.
        config: written resolved as ``config.yaml``.
    """

    def __init__(self, folder: Path, config: RunConfig):
        self.folder = folder
        self.config = config
        self.rows: list[dict[str, Any]] = []
        folder.mkdir(parents=True, exist_ok=True)
        values = asdict(config) | {"resume": None}
        write_atomically(folder / "config.yaml", OmegaConf.to_yaml(OmegaConf.create(values)).encode())

    @contextmanager
    def recording(self, from_round: int) -> Iterator[None]:
        """Open the record at ``from_round``, dropping later rows of an earlier attempt; close it whatever happens."""
        path = self.folder / "rounds.jsonl"
        self.rows = [row for row in read_rows(path) if row["round"] < from_round]
        write_atomically(path, "".join(json.dumps(row) + "\n" for row in self.rows).encode())
        self._write_summary({"status": "running"})
        status, error = "failed", {}
        try:
            with open(path, "a") as self._file:
                yield
            status = "finished"
        except KeyboardInterrupt:
            status = "interrupted"
            raise
        except Exception as reason:
            error = {"error": (str(reason) or type(reason).__name__).splitlines()[0]}
            raise
        finally:
            write_parquet(self.rows, self.folder / "rounds.parquet")
            if status != "finished":
                self._write_summary({"status": status, **error, **_last_values(self.rows)})

    def append(self, row: dict[str, Any]) -> None:
        """Add the row of one round."""
        self.rows.append(row)
        self._file.write(json.dumps(row) + "\n")
        self._file.flush()

    def finish(
        self,
        state: ServerState,
        guarantee: Mapping[str, Any] | None = None,
        calibration: Mapping[str, Any] | None = None,
    ) -> None:
        """Write the summary of a run that came to its end, with its guarantee and its calibration if it has them."""
        self._write_summary(
            {
                "status": "finished",
                **_last_values(self.rows),
                "rounds": state.round,
                **asdict(state.totals),
                "phase_switches": list(state.switches),
                "executors": state.executors,
                "params_sha256": params_sha256(state.params),
                **({"epsilon": guarantee["epsilon"], "privacy": guarantee} if guarantee else {}),
                **({"calibration": dict(calibration)} if calibration else {}),
            }
        )

    def _write_summary(self, values: Mapping[str, Any]) -> None:
        summary = {
            **values,
            "seed": self.config.seed,
            "machine": {"system": platform.platform(), "cpus": os.cpu_count(), "device": self.config.device},
            "versions": {
                "fedbatch": fedbatch.__version__,
                "python": platform.python_version(),
                **{name: metadata.version(name) for name in PACKAGES},
            },
        }
        write_atomically(self.folder / "summary.json", (json.dumps(summary, indent=2) + "\n").encode())


def read_rows(path: Path) -> list[dict[str, Any]]:
    """Rows of a record; a last line cut short by a kill is dropped."""
    rows = []
    for line in path.read_text().splitlines() if path.exists() else []:
        try:
            rows.append(json.loads(line))
        except json.JSONDecodeError:
            break
    return rows


def write_parquet(rows: list[dict[str, Any]], path: Path) -> None:
    """One row a round; columns as in the rows."""
    content = io.BytesIO()  # Polars hides that a disk is full in an error of its own
    pl.DataFrame(rows, infer_schema_length=None).write_parquet(content)
    write_atomically(path, content.getvalue())


def write_atomically(path: Path, content: bytes) -> None:
    """Write a file so that a reader, and a run that was killed meanwhile, sees the old or the new one."""
    partial = path.with_name(path.name + ".partial")
    partial.write_bytes(content)
    os.replace(partial, path)


def _last_values(rows: list[dict[str, Any]]) -> dict[str, Any]:
    """The last row, with the metrics of the last round that was evaluated."""
    if not rows:
        return {"rounds": 0}
    tested = [row for row in rows if row["test_loss"] == row["test_loss"]] or rows
    names = ("test_accuracy", "test_loss", *(n for n in tested[-1] if n.startswith("training_set_")))
    kept = (
        "rounds",
        "examples",
        "bytes_up",
        "bytes_down",
        "measured_seconds",
        "simulated_seconds",
        "train_loss",
    )
    noise = ("noise_scale", "noise_scale_low", "noise_scale_high", "noise_scale_unit")
    return {name: rows[-1][name] for name in (*kept, *noise)} | {name: tested[-1][name] for name in names}
