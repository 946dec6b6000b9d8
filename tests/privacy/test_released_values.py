"""The table of docs/privacy_inside.md names every value that a private run lets out, field by field."""

import json
import re
from dataclasses import fields
from fnmatch import fnmatch
from pathlib import Path

import pytest

from fedbatch.privacy.ledger import LedgerEntry
from fedbatch.results.folder import LEFT
from fedbatch.results.identity import Identity
from fedbatch.server.state import ServerState
from fedbatch.wire.held_out import Sums
from fedbatch.wire.messages import Hosted, PrivateContribution
from fedbatch.wire.queries import Labelled
from tests.conftest import run

PAGE = Path(__file__).parents[2] / "docs/privacy_inside.md"
FIXED = ("controller=fixed", "privacy.target_epsilon=null", "privacy.noise_multiplier=1.0", "rounds=2")
HELD = ("client_holdout=0.3", "temperature=private", "metrics=calibration")
QUANTILE = ("privacy.clip_quantile=0.5", "privacy.count_noise=2")
LABELS = ("active=margin", "active.scope=local_only", "active.seed_labels=200", "active.queries=1", "rounds=4")
TEXT = ("dataset=shakespeare_roles", "dataset.task=causal", "dataset.min_sequences=300", "dataset.context=8")
GPT = ("model=gpt", "model.layers=1", "model.heads=2", "model.width=8", "record_attention=true", "executor=fused")
RUNS = {
    "client_central": ("client_central", *HELD, *QUANTILE),
    "labels": ("client_central", *LABELS),
    "example_local": ("example_local",),
    "example_central": ("example_central",),
    "correlated": ("client_central", "privacy.bands=2"),
    "example_distributed": ("example_distributed", "privacy.min_clients=2"),
    "adaptive": ("client_central", "controller=noise_scale_switch", "privacy.target_epsilon=9"),
}


@pytest.fixture(scope="module")
def table():
    """Of every place, the patterns of names in the first column."""
    section = PAGE.read_text().split("## Every value that is released\n")[1].split("\n## ")[0]
    found: dict[str, set[str]] = {}
    for line in section.splitlines():
        cells = [cell.strip() for cell in line.strip("|").split("|")]
        names = re.findall(r"`([^`]+)`", cells[0])
        if line.startswith("| `"):
            assert len(cells) == 5 and all(cells), line
            for place in cells[1].split(", "):
                found.setdefault(place, set()).update(names)
    return found


def unnamed(names, patterns):
    return {name for name in names if not any(fnmatch(name, pattern) for pattern in patterns)}


def names_of(kind):
    return {field.name for field in fields(kind)}


def test_every_field_of_a_reply_stands_in_it(table):
    places = {
        "reply of a round": PrivateContribution,
        "reply with a slope": Sums,
        "reply of a node at the start": Hosted,
        "reply of labels": Labelled,
    }
    for place, kind in places.items():
        assert table[place] == names_of(kind), place


def test_every_field_of_state_ledger_and_identity_stands_in_it(table):
    assert not unnamed(names_of(ServerState), table["state"])
    assert table["ledger"] == names_of(LedgerEntry)
    assert not unnamed(names_of(Identity), table["identity"])
    kept = {Path(pattern).parts[0] for pattern in LEFT} - {"rounds.jsonl.damaged*"}
    assert not unnamed(kept, table["file"])


@pytest.mark.parametrize("kind", RUNS)
def test_every_column_and_key_of_a_private_run_stands_in_it(table, make_config, kind):
    mechanism, *options = RUNS[kind]
    config = make_config(f"privacy={mechanism}", *FIXED, *options)
    rows, summary, _ = run(config)
    folder = Path(config.run_dir)
    assert not unnamed({name for row in rows for name in row}, table["row"])
    assert not unnamed(summary, table["summary"])
    assert not unnamed(summary["privacy"], table["statement"])
    assert not unnamed({path.relative_to(folder).parts[0] for path in folder.rglob("*")}, table["file"])
    assert not unnamed(json.loads((folder / "answers.jsonl").read_text().splitlines()[0]), table["answers"])
    assert not unnamed(json.loads((folder / "run.json").read_text()), table["identity"])


@pytest.mark.slow
def test_so_does_what_is_recorded_of_attention(table, make_config):
    rows, _, _ = run(make_config("privacy=client_central", *FIXED, *TEXT, *GPT))
    assert "query_max" in rows[-1] and not unnamed(rows[-1], table["row"])


def test_what_holds_nothing_in_a_private_run_holds_nothing(make_config):
    for kind in ("client_central", "example_local"):
        rows, _, state = run(make_config(f"privacy={kind}", *FIXED, "nodes=4", folder=kind))
        for row in rows:
            assert row["train_loss"] != row["train_loss"] and row["mean_cosine"] != row["mean_cosine"]
            assert (row["executor"] == "") == (kind == "client_central")
        assert not state.buffers.numel() and not state.answered and not state.norms
