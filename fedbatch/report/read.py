"""Run folders as the plain values that a page shows."""

import json
import math
import os
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any
from urllib.parse import quote

import yaml

from fedbatch.config.compose import config_json
from fedbatch.config.trust import OF_A_FOLDER, refuse_strangers
from fedbatch.core.columns import COLUMNS, DEFAULT_SCORE
from fedbatch.core.errors import ConfigError
from fedbatch.core.files import from_json
from fedbatch.core.find_columns import column, named, seen_as
from fedbatch.core.scores import score_of
from fedbatch.privacy.statement import headline
from fedbatch.report.critical import critical_values
from fedbatch.report.ran import what_ran
from fedbatch.report.views import views_of
from fedbatch.results.folder import config_values, leaves
from fedbatch.results.load import run_folders
from fedbatch.results.own import trusted_in
from fedbatch.results.record import FILE, each_row, sample, thinned
from fedbatch.results.status import state

Row = Mapping[str, Any]
STAGES = ("plan_seconds", "client_seconds", "aggregate_seconds", "step_seconds", "evaluate_seconds")
UNBOUNDED = 1e300
"""An interval that is open above, where JSON has no infinity."""
CRITICAL = 40
"""Runs of a page up to which each says what batch it would take; each takes a tenth of a second."""
POINTS, LEAST, MOST = 60_000, 100, 2_000
"""Rounds in a page, and the fewest and most of one run: 500 runs make a page of 10 MB."""


def read_runs(folders: Sequence[Path], top: Path, trust: Sequence[str] = ()) -> dict[str, Any]:
    """All that a page shows of runs: their common config, the default one, and each run with what it has of its own.

    Args:
        folders: run folders, at or below ``top``, which their names and links are relative to.
        top: the folder that the page will lie in.
        trust: modules whose code the runs' time models may name.
    """
    most = min(MOST, max(LEAST, POINTS // len(folders)))
    runs = [read_run(folder, most) for folder in folders]
    for run, folder in zip(runs, folders, strict=True):
        place = os.path.relpath(folder, top)
        run["link"] = link(place)
        run["name"] = folder.name if len(runs) == 1 else place
        if run["config"] and len(runs) <= CRITICAL:
            run["critical"] = plain(critical_values(folder, trust))
    configs = [run["config"] for run in runs if run["config"]]
    common = {key: value for key, value in configs[0].items() if _all_have(configs, key, value)} if configs else {}
    for run in runs:
        run["config"] = {key: value for key, value in run["config"].items() if key not in common}
    defaults = flat(json.loads(config_json({})))
    return {"runs": runs, "common": common, "defaults": defaults, "columns": columns(scores(runs))}


def link(place: str) -> str:
    """A relative path as a link that is never more than that, whatever the folders are called.

    >>> link("javascript:alert(1)"), link("../50% #1?")
    ('./javascript%3Aalert%281%29', './../50%25%20%231%3F')
    """
    return place if place == "." else "./" + quote(os.fsencode(place.replace(os.sep, "/")))


def strangers(paths: Iterable[Path], trust: Sequence[str]) -> Iterator[str]:
    """A line for each run whose section on the batch size is left out, because its time model is not trusted."""
    for folder in sorted({folder for path in paths for folder in run_folders(path)}):
        try:
            values = config_values(folder)
        except ConfigError:  # damaged, which the page says
            continue
        try:
            refuse_strangers({"time_model": values.get("time_model")}, trusted_in(folder, trust), OF_A_FOLDER)
        except ConfigError as error:
            yield f"{folder / 'config.yaml'}: {error}"


def scores(runs: Iterable[Mapping[str, Any]]) -> dict[str, str]:
    """The columns of the runs' scores, and which way each is better."""
    summaries = [run["summary"] for run in runs]
    return {score_of(summary): str(summary.get("score_better", "higher")) for summary in summaries}


def columns(scores: Mapping[str, str]) -> dict[str, Any]:
    """What the page's scripts know of columns: their names in words, where they are shown, and which are scores."""
    places = {place: named(place) for place in ("summary", "compare", "cost")}
    places["compare"] = [*dict.fromkeys([*places["compare"], *scores])]
    labels = {name: name.replace("_", " ") for name in scores} | {each.name: each.label for each in COLUMNS}
    return {"labels": labels, "scores": dict(scores), **places}


def read_run(folder: Path, most: int) -> dict[str, Any]:
    """One run, finished or not, as values that JSON has; curves have at most about ``most`` points.

    A folder that cannot be read is a run with the status "unreadable" and the reason.
    """
    try:
        summary = from_json((folder / "summary.json").read_bytes())
        nested = yaml.load((folder / "config.yaml").read_text(), yaml.CSafeLoader)
        config = flat(nested)
        rows, status, stages = sample(folder / FILE, most), state(folder), seconds(folder / FILE)
    except (OSError, ValueError, KeyError, AttributeError, TypeError, yaml.YAMLError) as error:
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        return {
            "status": "unreadable",
            "summary": {"error": reason},
            "config": {},
            "ran": {},
            "curves": {},
            "views": {},
            "stages": {},
        }
    summary |= {name: summary[seen_as(name, summary)] for name in named("summary") if name in summary}
    if "privacy" in summary:
        summary["statement"] = headline(summary["privacy"])
    score = score_of(summary)
    shown = {"curves": curves(rows, len(rows), score), "views": views_of(folder, score.removeprefix("test_"))}
    ran = what_ran(nested, summary)
    return plain({"status": status, "summary": summary, "stages": stages, **shown}) | {"config": config, "ran": ran}


def flat(config: Mapping[str, Any]) -> dict[str, Any]:
    """Dotted keys and values of a config, without where it lies.

    >>> flat({"model": {"width": 8}, "privacy": {}, "run_dir": "runs/a"})
    {'model.width': 8, 'privacy._target_': 'none'}
    """
    empty = {f"{key}._target_": "none" for key, value in config.items() if value == {}}
    kept = {key: value for key, value in leaves(config) if key not in ("run_dir", "resume")}
    return {key: str(v) if v in (math.inf, -math.inf) or v != v else v for key, v in kept.items()} | empty


def seconds(record: Path) -> dict[str, float]:
    """Wall-clock seconds of each stage of all rounds."""
    sums: dict[str, float] = {}
    for row in each_row(record):
        sums |= {name: sums.get(name, 0.0) + row[name] for name in STAGES if name in row}
    return sums


def curves(rows: Sequence[Row], most: int, score: str = DEFAULT_SCORE) -> dict[str, list[Any]]:
    """Columns over the rounds that are kept, those without any value left out; bytes of both ways are added up.

    The column ``score`` is among them, of the test split and of examples of the training set.
    """
    rows = [rows[i] for i in thinned(rows, most)]
    drawn = {name: [row[name] for row in rows] for name in ("rounds", "examples", "simulated_seconds", "phase")}
    drawn["bytes"] = [row["bytes_up"] + row["bytes_down"] for row in rows]
    drawn["switch"] = [row["switch"] for row in rows]
    if rows:
        there = dict.fromkeys(name for row in rows for name in row)
        own = (score, score.replace("test_", "training_set_", 1))
        names = [name for name in there if name in own or ((known := column(name)) and "curve" in known.shown)]
        found = {name: [_number(row.get(seen_as(name, row))) for row in rows] for name in names}
        if "epsilon" not in names and "epsilon_rdp" in there:  # a run of an earlier fedbatch has only this reading
            found["epsilon"] = [_number(row.get("epsilon_rdp")) for row in rows]
        found |= {f"attention_layer_{i}": layer for i, layer in enumerate(attention(rows))}
        drawn |= {name: values for name, values in found.items() if any(v is not None for v in values)}
    return drawn


def attention(rows: Sequence[Row]) -> list[list[float | None]]:
    """The largest attention logit of each layer, over its heads, in each row; no layers where none was recorded."""
    sizes = [[max(heads) for heads in row.get("attention_logit_max", [])] for row in rows]
    layers = max(map(len, sizes), default=0)
    return [[_number(size[i]) if size else None for size in sizes] for i in range(layers)]


def plain(value: Any) -> Any:
    """Mappings and lists with what JSON cannot say replaced: not-a-number by null, infinity by `UNBOUNDED`."""
    if isinstance(value, Mapping):
        return {key: plain(each) for key, each in value.items()}
    if isinstance(value, list | tuple):
        return [plain(each) for each in value]
    return _number(value) if isinstance(value, float) else value


def _number(value: float | None) -> float | None:
    """Six digits are more than a picture shows, and half the page."""
    if value is None or math.isnan(value):
        return None
    if isinstance(value, int):
        return value
    return float(f"{value:.6g}") if math.isfinite(value) else math.copysign(UNBOUNDED, value)


def _all_have(configs: Iterable[Mapping[str, Any]], key: str, value: Any) -> bool:
    return all(key in config and config[key] == value for config in configs)
