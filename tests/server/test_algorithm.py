"""What clients and the server keep between rounds, through resumes, faults, several nodes and lost files."""

import json
import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from fedbatch.clients import Scaffold
from fedbatch.config.schema import parse
from fedbatch.core.errors import ConfigError
from fedbatch.node import train as node
from fedbatch.server import checkpoint
from fedbatch.server.exchange import NoAnswerError
from fedbatch.setup import task
from tests.conftest import run

SCAFFOLD = ("client_work=scaffold", "controller=fixed", "weighting=uniform", "executor=vmap", "server_optimizer.lr=1")
FAULTS = ("nodes=20", "cohort_size=10", "executor=loop", "faults=some", "faults.dropout=0.2", "faults.not_finite=0.2")


def on(config, **changed):
    return parse(json.loads(config.to_json()) | {"resume": config.run_dir} | changed)


def compared(result):
    """Rows without what a clock says, and the state."""
    rows, _, state = result
    kept = [repr({n: v for n, v in row.items() if not n.endswith("_seconds") or "simulated" in n}) for row in rows]
    return kept, state.params, state.shared, state.versions


def assert_same(one, other):
    rows, *tensors = compared(one)
    other_rows, *other_tensors = compared(other)
    assert rows == other_rows
    for a, b in zip(tensors, other_tensors, strict=True):
        if isinstance(a, dict):
            assert a.keys() == b.keys() and all(torch.equal(a[name], b[name]) for name in a)
        else:
            assert torch.equal(a, b)


def controls(config, state, newest=False):
    """Each client's c_k: the version that the server holds to be valid, or the newest file."""
    found = []
    for client, version in enumerate(state.versions.tolist()):
        files = sorted((Path(config.run_dir) / "clients" / str(client)).glob("round-*.npy"))
        path = (
            files[-1] if newest and files else Path(config.run_dir, "clients", str(client), f"round-{version:08d}.npy")
        )
        found.append(np.load(path) if version else np.zeros(len(state.params)))
    return np.array(found)


def broken_from(round_, monkeypatch):
    """A context in which no node answers from a round on, after it has done its work."""
    patch = pytest.MonkeyPatch()
    original = node.train

    def train(plan, run):
        answer = original(plan, run)
        if plan.round >= round_:
            raise RuntimeError("lost on the way")
        return answer

    patch.setattr(node, "train", train)
    return patch


@pytest.mark.parametrize("work", ["scaffold", "local_momentum"])
def test_rounds_that_are_done_again_end_as_if_nothing_had_happened(make_config, monkeypatch, work):
    settings = (*SCAFFOLD, f"client_work={work}", "rounds=9", "checkpoint_every_rounds=3", "cohort_size=10")
    settings = settings if work == "scaffold" else (*settings, "client_work.keep=true")
    whole = run(make_config(*settings, folder="whole"))
    config = make_config(*settings, folder="broken")
    for lost, _ in ((5, 3), (8, 6)):  # rounds 3, 4 and 6, 7 are done twice, and what 5 and 8 made was never taken
        patch = broken_from(lost, monkeypatch)
        with pytest.raises(NoAnswerError):
            run(config if lost == 5 else on(config))
        patch.undo()
        task.forget()
    assert_same(run(on(config)), whole)
    assert all(row["lost_client_states"] == 0 for row in whole[0])


def test_a_run_that_goes_back_to_the_checkpoint_before_finds_what_clients_had_then(make_config):
    settings = (*SCAFFOLD, "rounds=8", "checkpoint_every_rounds=2", "cohort_size=10")
    whole = run(make_config(*settings, folder="whole"))
    config = make_config(*settings, folder="damaged")
    run(config)
    last = sorted((Path(config.run_dir) / "checkpoints").iterdir())[-1]
    last.write_bytes(last.read_bytes()[:-9])
    task.forget()
    with pytest.warns(UserWarning, match="is damaged"):
        again = run(on(config))
    assert_same(again, whole)


def test_what_the_server_threw_away_leaves_no_trace(make_config):
    config = make_config(*SCAFFOLD, *FAULTS, "rounds=12", folder="faults")
    rows, _, state = run(config)
    assert sum(row["rejected_replies"] for row in rows) > 10
    assert sum(row["lost_client_states"] for row in rows) == 0
    valid, newest = controls(config, state), controls(config, state, newest=True)
    np.testing.assert_allclose(state.shared["control"].numpy(), valid.mean(axis=0), atol=1e-5)  # c is the mean of c_k
    assert np.abs(state.shared["control"].numpy() - newest.mean(axis=0)).max() > 1e-3  # what a naive node would have


def test_nodes_and_the_way_of_messages_make_no_difference(make_config):
    settings = (*SCAFFOLD, "rounds=4", "cohort_size=10", "executor=loop")
    _, _, one = run(make_config(*settings, folder="one"))
    _, _, four = run(make_config(*settings, "nodes=4", folder="four"))
    _, _, written = run(make_config(*settings, "nodes=4", "runtime.by_reference=false", folder="written"))
    torch.testing.assert_close(four.params, one.params, rtol=1e-5, atol=1e-6)
    assert torch.equal(written.params, four.params) and torch.equal(written.versions, one.versions)


def test_who_has_lost_its_vectors_begins_with_zeros_and_is_counted(make_config):
    settings = (*SCAFFOLD, "rounds=3", "cohort_size=20", "sampling=all")
    config = make_config(*settings)
    run(config)
    files = Path(config.run_dir) / "clients"
    shutil.rmtree(files / "7")
    damaged = next((files / "3").glob("*.npy"))
    for path in (files / "3").glob("*.npy"):
        path.write_bytes(damaged.read_bytes()[:40])
    task.forget()
    rows, _, _ = run(on(config, rounds=5))
    assert [row["lost_client_states"] for row in rows] == [0, 0, 0, 2, 0]


def test_a_client_has_no_more_files_than_a_resume_may_ask_for(make_config):
    config = make_config(*SCAFFOLD, "rounds=12", "checkpoint_every_rounds=3", "cohort_size=20", "sampling=all")
    run(config)
    for folder in (Path(config.run_dir) / "clients").iterdir():
        assert len(list(folder.iterdir())) <= 2 + checkpoint.KEEP


def test_a_new_run_in_the_folder_begins_with_zeros(make_config):
    config = make_config(*SCAFFOLD, "rounds=3", "cohort_size=20", "sampling=all")
    first = run(config)
    left = Path(config.run_dir) / "clients" / "0" / "round-00000099.npy"
    np.save(left, np.ones(3))
    task.forget()
    assert_same(run(replace(config, overwrite=True)), first)
    assert not left.exists()


def test_bytes_are_those_of_all_that_is_sent(make_config):
    _, plain, _ = run(make_config("client_work=local_sgd", *SCAFFOLD[1:], "rounds=2", folder="plain"))
    _, both, _ = run(make_config(*SCAFFOLD, "rounds=2", folder="both"))
    assert (both["bytes_up"], both["bytes_down"]) == (2 * plain["bytes_up"], 2 * plain["bytes_down"])


def test_an_aggregator_of_single_updates_is_refused(make_config):
    config = make_config(*SCAFFOLD, "aggregator=median", "executor=auto")
    with pytest.raises(ConfigError, match="client_work: Scaffold sends vectors besides updates.*use aggregator=mean"):
        task.load(config.to_json())


def test_two_kinds_of_kept_vectors_in_one_run_are_refused(make_config):
    work = "{_target_: fedbatch.clients.LocalMomentum, lr: 0.1, keep: true}"
    config = make_config("client_work=scaffold", f"controller.large.client_work={work}")
    with pytest.raises(ConfigError, match="two phases have client work whose clients keep different vectors"):
        task.load(config.to_json())


def test_a_client_whose_update_is_not_finite_keeps_nothing_of_that_round(make_config, monkeypatch):
    original, calls = Scaffold.finish, []

    def finish(self, params, point, carry, steps):
        calls.append(1)
        done = original(self, params, point, carry, steps)
        return done._replace(update=done.update * np.nan) if len(calls) == 3 else done

    monkeypatch.setattr(Scaffold, "finish", finish)
    config = make_config(*SCAFFOLD[:3], "executor=loop", "rounds=1", "cohort_size=20", "sampling=all")
    rows, _, state = run(config)
    files = [Path(config.run_dir) / "clients" / str(client) / "round-00000001.npy" for client in range(20)]
    assert rows[0]["excluded_clients"] == 1
    assert [path.exists() for path in files] == (state.versions > 0).tolist() == [c != 2 for c in range(20)]


def test_phases_may_have_other_client_work(make_config):
    phases = ("controller=late_switch", "controller.share=0.5", "controller.large.cohort_size=8")
    phases = (*phases, "controller.large.client_batch_size=4", "client_work=fedsgd", "weighting=uniform")
    work = "controller.large.client_work={_target_: fedbatch.clients.Scaffold, lr: 0.05, epochs: 1}"
    rows, _, state = run(make_config(*phases, work, "rounds=6"))
    kept = ["lost_client_states" in row for row in rows]
    assert kept == [row["phase"] == "large" for row in rows] and any(kept) and not all(kept)
    assert state.shared["control"].norm() > 0 and state.versions.max() == 6


@pytest.mark.parametrize("by_reference", [True, False])
@pytest.mark.parametrize(("work", "name"), [("scaffold", "control"), ("fednova", "steps")])
def test_a_node_that_sends_more_besides_than_there_can_be_is_left_out(
    make_config, monkeypatch, work, name, by_reference
):
    original = node.train

    def train(plan, run):
        answer = original(plan, run)
        lies = 0 in plan.clients  # the first of four nodes
        return replace(answer, extra_sums=answer.extra_sums * 1e6) if lies and plan.round else answer

    monkeypatch.setattr(node, "train", train)
    messages = f"runtime.by_reference={str(by_reference).lower()}"
    settings = (*SCAFFOLD[1:], f"client_work={work}", "nodes=4", "cohort_size=20", "sampling=all", messages)
    rows, _, _ = run(make_config(*settings, "rounds=3"))
    assert [row["rejected_replies"] for row in rows] == [0, 1, 1]
    assert [row["cohort_size"] for row in rows] == [20, 15, 15]
