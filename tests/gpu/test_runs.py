"""Whole runs on the virtual GPU: nothing crosses devices, and the numbers are those of a CPU, to the bit."""

from dataclasses import replace
from pathlib import Path

import pytest

from fedbatch.api import execute
from fedbatch.executors import choose
from fedbatch.runtime.local import LocalGrid
from fedbatch.server import exchange
from fedbatch.setup import task
from fedbatch.wire.codec import ByReference
from fedbatch.wire.messages import Contribution, Updates
from tests.virtual_gpu import VirtualGpu
from tests.whole_runs import left

BASE = """dataset=digits population=20 cohort_size=6 client_batch_size=4 rounds=3 controller=fixed report=none
evaluate_every_rounds=1 checkpoint_every_rounds=1 deterministic=true""".split()
MLP = "model.width=8"
CNN = "model=cnn model.channels=4 model.hidden=8"
STEPS = "client_work=local_sgd client_work.epochs=null client_work.steps=2"
NOISE = "privacy.target_epsilon=null privacy.noise_multiplier=1.0 model.width=8"
TEXT = """dataset=shakespeare_roles partitioner=natural model.layers=1 model.width=16 model.heads=2 rounds=2
evaluate_every_rounds=0"""
GPT = f"{TEXT} model=gpt dataset.min_sequences=16 population=595"
HELD_OUT = "client_holdout=0.25 executor=fused model.width=8"
QUERY = "active.queries=1 executor=fused model.width=8"

FAST = {
    "fused": f"executor=fused noise_scale.halves=true noise_scale.cosine=true {MLP}",
    "local vmap": f"executor=vmap {STEPS} {MLP} rounds=2",
    "example_local fused": f"executor=fused privacy=example_local {NOISE} rounds=2",
    "calibration": f"{HELD_OUT} metrics=calibration temperature=shared population=8 rounds=1",
    "krum": f"executor=loop aggregator=krum {MLP}",
    "scaffold vmap": f"executor=vmap client_work=scaffold {MLP}",
    "asynchronous": f"executor=fused asynchronous=fedbuff time_model.speed_spread=1.5 {MLP}",
}
SLOW = {
    **{
        f"{work} {e}": f"executor={e} client_work={work} {MLP} client_holdout=0.2"
        for work in "feddyn fednova local_momentum local_adamw ditto fedper".split()
        for e in ("vmap", "loop")
    },
    "scaffold written": f"executor=loop client_work=scaffold {MLP} runtime.by_reference=false nodes=2",
    "diloco": f"executor=vmap client_work=diloco client_work.steps=3 {MLP}",
    "fedbn": f"executor=loop client_work=fedbn {CNN} model.norm=batch client_holdout=0.2",
    "fedbn vmap": f"executor=vmap client_work=fedbn {CNN} model.channels=8 model.norm=group client_holdout=0.2",
    **{f"mlp {e}": f"executor={e} {MLP}" for e in ("fused", "vmap", "loop", "auto")},
    **{f"cnn {e}": f"executor={e} {CNN}" for e in ("fused", "vmap", "loop")},
    **{f"halves {e}": f"executor={e} noise_scale.halves=true noise_scale.cosine=true {MLP}" for e in ("vmap", "loop")},
    "logistic": "executor=fused model=logistic",
    "group norm": f"executor=fused {CNN} model.channels=8 model.norm=group",
    "batch norm": f"executor=loop {CNN} model.norm=batch",
    "local loop": f"executor=loop {STEPS} {MLP}",
    "local proximal": f"executor=vmap {STEPS} {MLP} client_work.proximal=0.1",
    "local epochs": f"executor=vmap client_work=local_sgd {MLP}",
    "local cnn": f"executor=vmap {STEPS} {CNN}",
    **{
        f"loss {name}": f"executor=loop loss={name} {MLP}"
        for name in """brier ce_avuc ce_mmce ce_s_avuc ce_sb_ece ce_sb_ece_label_binned confidence_penalty flsd53 focal
        label_smoothing ce_frozen_bins""".split()
    },
    **{
        f"loss {name} fused": f"executor=fused loss={name} {MLP}"
        for name in ("brier", "focal", "flsd53", "label_smoothing", "confidence_penalty")
    },
    "metrics": f"metrics=calibration {MLP} executor=fused",
    "held out": HELD_OUT,
    "held out calibration": f"metrics=calibration {HELD_OUT}",
    **{f"temperature {kind}": f"temperature={kind} {HELD_OUT}" for kind in ("shared", "per_client", "soft_bins")},
    "temperature private": f"temperature=private privacy=client_central {NOISE} {HELD_OUT}",
    **{
        f"server {name}": f"server_optimizer={name} executor=fused {MLP}"
        for name in "adam adamw lamb lars merit".split()
    },
    **{
        f"aggregator {name}": f"aggregator={name} executor=loop {MLP}"
        for name in ("median", "trimmed_mean", "norm_bound")
    },
    **{
        f"compression {name}": f"compression={name} executor={e} {MLP}"
        for name, e in zip("top_k rand_k qsgd sign power_sgd half".split(), ("vmap", "loop") * 3, strict=True)
    },
    **{f"client_central {e}": f"privacy=client_central {NOISE} executor={e}" for e in ("fused", "vmap", "loop")},
    "client_central local": f"privacy=client_central {NOISE} {STEPS} executor=vmap",
    **{f"example_local {e}": f"privacy=example_local {NOISE} executor={e}" for e in ("vmap", "loop", "ghost")},
    "example_local cnn": f"privacy=example_local {NOISE} {CNN} executor=fused rounds=1",  # noise follows from all bits
    "example_local per layer": f"privacy=example_local {NOISE} privacy.clipping=per_layer executor=fused",
    "example_local local": f"privacy=example_local {NOISE} {STEPS} executor=fused",
    "example_distributed": f"""privacy=example_distributed {NOISE} privacy.secure_aggregation=simulated
        privacy.min_clients=2 executor=fused""",
    "two nodes": f"nodes=2 executor=fused {MLP}",
    "training set": f"training_set_examples=50 executor=fused {MLP}",
    **{f"active {name}": f"active={name} {QUERY}" for name in ("margin", "badge", "cluster_margin")},
    "gpt fused": f"{GPT} record_attention=true executor=fused",
    "gpt vmap local": f"{GPT} {STEPS} executor=vmap",
    "gpt tied vmap": f"{GPT} model.tie_weights=true executor=vmap",
    "bert": f"{TEXT} model=bert dataset.task=masked population=937 executor=fused",
    "resnet18": """dataset=fashion_mini model=resnet18 model.width=8 rounds=1 evaluate_every_rounds=0
        client_batch_size=2 cohort_size=3 executor=fused""",
    "autoencoder": """dataset=fashion_pixels model=autoencoder model.width=8 model.code=4 rounds=2
        evaluate_every_rounds=0 executor=fused""",
}

LIES = {
    "a longer sum": ("executor=fused", "bounded_nodes", {"update_sum": -1e3, "sq_norms": 1e6}),
    "longer updates": ("executor=loop aggregator=median", "bounded_nodes", {"updates": -1e3}),
    "a sum longer than its parts": ("executor=fused", "rejected_replies", {"update_sum": -1e3}),
}
"""Overrides, the column that counts the lie, and factors of the fields of a node's answer."""

CLOSE = {"cnn fused", "group norm", "local cnn", "example_local cnn", "resnet18", "mlp auto"}
"""On a GPU the convolutions of all clients are one call, which rounds in another order, and `auto` takes no chain."""


def overrides_of(text):
    """The base with what a case changes; of a key that is given twice the last counts."""
    values = dict(part.split("=", 1) for part in [*BASE, *text.split()])
    if values.get("model") == "cnn":
        values.pop("model.width", None)
    return [f"{name}={value}" for name, value in values.items()]


def left_on(make_config, device, text):
    """What a run leaves that is done on a device."""
    config = make_config(*overrides_of(text), f"device={device}", base=(), folder=device)
    task.forget()
    exchange.tell_once.cache_clear()
    choose.tell_once.cache_clear()
    execute(config)
    return left(Path(config.run_dir))


def compare(make_config, text, is_close=False):
    there = VirtualGpu()
    expected = left_on(make_config, "cpu", text)
    with there.active():
        found = left_on(make_config, "cuda", text)
    assert there.launches, "nothing ran on the GPU"
    if is_close:
        assert found["rows"] == pytest.approx(expected["rows"], rel=1e-3, abs=1e-6)
        return found
    assert found["params"] == expected["params"]
    assert found == expected
    return found


@pytest.mark.parametrize("name", FAST)
def test_a_run_has_the_bits_of_a_cpu(make_config, name):
    compare(make_config, FAST[name])


@pytest.mark.slow
@pytest.mark.parametrize("name", SLOW)
def test_every_part_has_the_bits_of_a_cpu(make_config, name):
    compare(make_config, SLOW[name], name in CLOSE)


@pytest.mark.parametrize("name", LIES)
def test_a_node_that_lies_is_found_out_on_a_gpu_too(make_config, monkeypatch, name):
    text, column, factors = LIES[name]
    deliver = LocalGrid._deliver

    def lying(grid, message):
        reply = deliver(grid, message)
        answer = reply.content.message if isinstance(reply.content, ByReference) else None
        if message.metadata.dst_node_id == 3 and isinstance(answer, Contribution | Updates):
            changed = {field: getattr(answer, field) * factor for field, factor in factors.items()}
            reply.content = ByReference(replace(answer, **changed))
        return reply

    monkeypatch.setattr(LocalGrid, "_deliver", lying)
    found = compare(make_config, f"{text} {MLP} nodes=4 sampling=all cohort_size=20 rounds=2")
    assert [found["rows"][f"{round_}.{column}"] for round_ in (0, 1)] == [1, 1]
