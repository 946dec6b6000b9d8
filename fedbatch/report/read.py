"""Run folders as the plain values that a page shows."""

import json
import math
import os
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import yaml

from fedbatch.compose import config_json
from fedbatch.privacy.statement import headline
from fedbatch.results.folder import leaves
from fedbatch.results.shown import noise_column
from fedbatch.results.status import state
from fedbatch.results.store import read_rows

Row = Mapping[str, Any]
CURVES = (
    "train_loss test_loss training_set_loss test_accuracy training_set_accuracy lr global_batch cohort_size "
    "noise_scale noise_scale_low noise_scale_high b_within m_drift test_ece held_out_ece epsilon_rdp labels_used "
    "client_accuracy_p5 client_accuracy_p25 client_accuracy_p50 client_accuracy_p75 client_accuracy_p95 "
    "trust_ratio_min trust_ratio_median trust_ratio_max"
).split()
STAGES = ("plan_seconds", "client_seconds", "aggregate_seconds", "step_seconds", "evaluate_seconds")
UNBOUNDED = 1e300
"""An interval that is open above, where JSON has no infinity."""
POINTS, LEAST, MOST = 60_000, 100, 2_000
"""Rounds in a page, and the fewest and most of one run: 500 runs make a page of 10 MB."""


def read_runs(folders: Sequence[Path], top: Path) -> dict[str, Any]:
    """All that a page shows of runs: their common config, the default one, and each run with what it has of its own.

    Args:
        folders: run folders, at or below ``top``, which their names and links are relative to.
        top: the folder that the page will lie in.
    """
    most = min(MOST, max(LEAST, POINTS // len(folders)))
    runs = [read_run(folder, most) for folder in folders]
    for run, folder in zip(runs, folders, strict=True):
        run["link"] = os.path.relpath(folder, top)
        run["name"] = folder.name if len(runs) == 1 else run["link"]
    configs = [run["config"] for run in runs if run["config"]]
    common = {key: value for key, value in configs[0].items() if _all_have(configs, key, value)} if configs else {}
    for run in runs:
        run["config"] = {key: value for key, value in run["config"].items() if key not in common}
    return {"runs": runs, "common": common, "defaults": flat(json.loads(config_json({})))}


def read_run(folder: Path, most: int) -> dict[str, Any]:
    """One run, finished or not, as values that JSON has; curves have at most about ``most`` points.

    A folder that cannot be read is a run with the status "unreadable" and the reason.
    """
    try:
        summary = json.loads((folder / "summary.json").read_text())
        config = flat(yaml.load((folder / "config.yaml").read_text(), yaml.CSafeLoader))
        rows, status = read_rows(folder / "rounds.jsonl"), state(folder)
    except (OSError, ValueError, KeyError, AttributeError, yaml.YAMLError) as error:
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        return {"status": "unreadable", "summary": {"error": reason}, "config": {}, "curves": {}, "stages": {}}
    stages = {name: math.fsum(row[name] for row in rows) for name in STAGES if rows and name in rows[0]}
    if "privacy" in summary:
        summary["statement"] = headline(summary["privacy"])
    return plain({"status": status, "summary": summary, "curves": curves(rows, most), "stages": stages}) | {
        "config": config
    }


def flat(config: Mapping[str, Any]) -> dict[str, Any]:
    """Dotted keys and values of a config, without where it lies.

    >>> flat({"model": {"width": 8}, "privacy": {}, "run_dir": "runs/a"})
    {'model.width': 8, 'privacy._target_': 'none'}
    """
    empty = {f"{key}._target_": "none" for key, value in config.items() if value == {}}
    kept = {key: value for key, value in leaves(config) if key not in ("run_dir", "resume")}
    return {key: str(v) if v in (math.inf, -math.inf) or v != v else v for key, v in kept.items()} | empty


def curves(rows: Sequence[Row], most: int) -> dict[str, list[Any]]:
    """Columns over the rounds that are kept, those without any value left out; bytes of both ways are added up."""
    kept = [rows[i] for i in thinned(rows, most)]
    columns = {name: [row[name] for row in kept] for name in ("rounds", "examples", "simulated_seconds", "phase")}
    columns["bytes"] = [row["bytes_up"] + row["bytes_down"] for row in kept]
    columns["switch"] = [row["switch"] for row in kept]
    if rows:
        shown = noise_column(rows[-1])  # under privacy the one with privacy noise, under the plain name
        source = {name: name.replace("noise_scale", shown) for name in CURVES}
        found = {name: [_number(row.get(source[name])) for row in kept] for name in CURVES}
        found |= {f"attention_layer_{i}": layer for i, layer in enumerate(attention(kept))}
        columns |= {name: values for name, values in found.items() if any(v is not None for v in values)}
    return columns


def thinned(rows: Sequence[Row], most: int) -> list[int]:
    """Which rounds to show: all, or ends, changes of phase, and an even choice of the evaluated and of all rounds.

    >>> rounds = [{"test_loss": 1.0, "switch": "why" if i == 5 else ""} for i in range(100)]
    >>> thinned(rounds, 4)
    [0, 5, 50, 99]
    """
    if len(rows) <= most:
        return list(range(len(rows)))
    tested = [i for i, row in enumerate(rows) if row["test_loss"] == row["test_loss"]]
    changed = [i for i, row in enumerate(rows) if row["switch"]][:most]
    even = [*_every(range(len(rows)), most // 2), *_every(tested, most // 2)]
    return sorted({0, len(rows) - 1, *changed, *even})


def attention(rows: Sequence[Row]) -> list[list[float | None]]:
    """The largest attention logit of each layer, over its heads, in each row; no layers where none was recorded."""
    sizes = [[max(heads) for heads in row.get("attention_logit_max", [])] for row in rows]
    layers = max(map(len, sizes), default=0)
    return [[_number(size[i]) if size else None for size in sizes] for i in range(layers)]


def plain(value: Any) -> Any:
    """Mappings and lists with what JSON cannot say replaced: not-a-number by null, infinity by `UNBOUNDED`."""
    if isinstance(value, Mapping):
        return {key: plain(each) for key, each in value.items()}
    if isinstance(value, list):
        return [plain(each) for each in value]
    return _number(value) if isinstance(value, float) else value


def _number(value: float | None) -> float | None:
    """Six digits are more than a picture shows, and half the page."""
    if value is None or math.isnan(value):
        return None
    if isinstance(value, int):
        return value
    return float(f"{value:.6g}") if math.isfinite(value) else math.copysign(UNBOUNDED, value)


def _every(items: Sequence[int], count: int) -> Iterable[int]:
    return items[:: max(1, -(-len(items) // max(1, count)))]


def _all_have(configs: Iterable[Mapping[str, Any]], key: str, value: Any) -> bool:
    return all(key in config and config[key] == value for config in configs)
