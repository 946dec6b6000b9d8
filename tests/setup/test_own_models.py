"""Whole runs with models as people bring them."""

import json
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from fedbatch.core.errors import ConfigError, RunFailedError
from fedbatch.server.checkpoint import load_latest
from fedbatch.server.state import params_sha256
from fedbatch.setup import task
from tests.conftest import run

PLAIN = ("controller=fixed", "rounds=6", "evaluate_every_rounds=0", "server_optimizer.lr=0.1")


@pytest.fixture
def config_of(make_config):
    def make(name, *overrides, **options):
        config = make_config(*PLAIN, *overrides, base=tuple(o for o in TINY if not o.startswith("model")), **options)
        return replace(config, model={"_target_": f"tests.own_models.{name}"})

    return make


TINY = ("dataset=digits", "population=20", "cohort_size=4", "client_batch_size=4")
STATEFUL = ("cumulative_norm", "dropped", "noisy", "stochastic_depth")


@pytest.mark.parametrize("work", ["fedsgd", "local_sgd"])
@pytest.mark.parametrize("name", STATEFUL)
def test_resume_is_bit_equal_whatever_a_model_keeps_or_draws(config_of, name, work):
    more = (
        f"client_work={work}",
        "client_batch_size=3",
        *(["client_work.steps=2", "client_work.epochs=null"] if work == "local_sgd" else []),
    )
    _, whole, state = run(config_of(name, *more))
    run(config_of(name, *more, "rounds=3", folder="part"))
    task.load.cache_clear()
    torch.manual_seed(99)  # what a new process has is not what the old one had
    _, resumed, again = run(replace(config_of(name, *more, folder="part"), resume="part"))
    assert params_sha256(state.params) == params_sha256(again.params) and torch.equal(state.buffers, again.buffers)
    assert whole["test_loss"] == resumed["test_loss"]


def test_a_counter_is_in_the_checkpoint_and_the_mean_of_the_clients_own(config_of):
    _, _, state = run(config_of("cumulative_norm", "rounds=3"))
    assert state.buffers[-1] == 3


@pytest.mark.parametrize("nodes", [1, 4])
def test_dropout_is_the_same_by_every_executor_on_any_number_of_nodes(config_of, nodes):
    found = {}
    for executor in ("loop", "fused", "vmap", "auto"):
        found[executor] = run(config_of("dropped", f"executor={executor}", f"nodes={nodes}", folder=executor))[2].params
    for params in found.values():
        assert (params - found["loop"]).norm() < 1e-5 * found["loop"].norm()
    without = run(config_of("dropped", "executor=loop", "seed=1", folder="other"))[2].params
    assert (without - found["loop"]).norm() > 1e-2 * found["loop"].norm()


@pytest.mark.parametrize("executor", ["auto", "fused", "vmap", "ghost", "loop"])
def test_dropout_under_privacy(config_of, executor):
    private = ("privacy=example_local", "privacy.target_epsilon=null", "privacy.noise_multiplier=1.0", "rounds=2")
    rows, _, _ = run(config_of("dropped", *private, f"executor={executor}", "channels_last=false"))
    assert len(rows) == 2


def test_a_mask_of_minus_infinity_is_a_constant(config_of):
    rows, _, state = run(config_of("Masked"))
    assert len(rows) == 6 and state.buffers.numel() == 0


def test_a_constant_that_turns_out_to_change_ends_the_run_in_words(config_of):
    with pytest.raises(RunFailedError, match="buffer count has changed"):
        run(config_of("Late", "executor=loop", "rounds=40"))


@pytest.mark.parametrize(("name", "dtype"), [("in_float64", torch.float64), ("lazy", torch.float32)])
def test_other_precisions_and_lazy_layers_work(config_of, name, dtype):
    rows, _, state = run(config_of(name))
    assert len(rows) == 6 and state.params.dtype == dtype


def test_one_module_for_server_and_nodes_is_refused(config_of):
    with pytest.raises(ConfigError, match="same_module gives the same module twice"):
        run(config_of("same_module"))


def test_what_is_no_module_is_refused(config_of):
    config = replace(config_of("lazy"), model={"_target_": "builtins.dict"})
    with pytest.raises(ConfigError, match="model: builtins.dict must give an nn.Module"):
        task.load(config.to_json())


DIRICHLET = (
    "partitioner=dirichlet",
    "partitioner.alpha=0.1",
    "population=30",
    "cohort_size=30",
    "client_batch_size=16",
)


def test_clients_with_fewer_examples_than_the_batch_give_what_they_have(make_config):
    config = make_config(*DIRICHLET, "controller=fixed", "rounds=3", base=("dataset=digits", "model=logistic"))
    sizes = task.load(config.to_json()).partition.sizes(torch.arange(30).numpy())
    rows, _, _ = run(config)
    small = int((sizes < 16).sum())
    assert small and [row["short_clients"] for row in rows] == [small] * 3
    assert rows[0]["global_batch"] == int(sizes.clip(max=16).sum())
    assert load_latest(Path(config.run_dir) / "checkpoints").round == 3
    assert json.loads((Path(config.run_dir) / "summary.json").read_text())["rounds"] == 3


def test_refusing_small_clients_is_an_option(make_config):
    config = make_config(
        *DIRICHLET, "controller=fixed", "small_clients=refuse", base=("dataset=digits", "model=logistic")
    )
    with pytest.raises(ConfigError, match="smallest client's 4 examples.* or small_clients=accept"):
        task.load(config.to_json())


def test_a_remembered_executor_that_turns_out_wrong_is_given_up_under_auto(config_of, monkeypatch):
    from fedbatch.executors.choose import EXECUTORS, Executors

    right = EXECUTORS["fused"]
    monkeypatch.setattr(Executors, "chosen", lambda *_: "fused")
    rows, summary, _ = run(config_of("dropped", "rounds=3"))
    assert {row["executor"] for row in rows} == {"fused"} and summary["executors"] == {"fixed": "fused"}
    monkeypatch.undo()
    monkeypatch.setitem(EXECUTORS, "fused", lambda job: replace(right(job), sq_norms=right(job).sq_norms * 1.1))
    task.load.cache_clear()
    rows, _, _ = run(replace(config_of("dropped"), resume="run"))
    assert [row["rejected_replies"] for row in rows] == [0] * 6 and {row["executor"] for row in rows[3:]} <= {
        "loop",
        "vmap",
    }


def test_a_loss_with_parameters_of_its_own_is_refused(make_config):
    loss = "loss._target_=tests.own_models.Temperature"
    with pytest.raises(ConfigError, match="loss: Temperature has 1 parameters of its own, which would never"):
        task.load(make_config(loss, "~loss.label_smoothing").to_json())
    assert task.load(make_config(loss, "~loss.label_smoothing", "+loss.frozen=true").to_json())
