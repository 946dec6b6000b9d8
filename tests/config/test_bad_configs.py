"""Configs that cannot run: each is refused in one line that names the field, with exit code 2."""

import sys

import pytest

from fedbatch.cli import app

BASE = "dataset=digits population=20 cohort_size=4 model.width=8 controller=fixed rounds=1".split()

WHOLE = ["abc", "1.5", "null", "[1]", "{a:1}", "true1"]
NUMBER = ["abc", "[1]", "{a:1}"]
SWITCH = ["maybe", "[1]", "7.5"]

SCALARS = {
    "population": [*WHOLE, "0", "-1", "1e3x"],
    "cohort_size": [*WHOLE, "0", "-1", "21"],
    "client_batch_size": ["abc", "1.5", "0", "-1", "100000"],
    "rounds": [*WHOLE, "0", "-1"],
    "seed": [*WHOLE, "-1"],
    "executor": ["fast", "1", "null"],
    "nodes": [*WHOLE, "0", "-1", "21"],
    "device": ["gpu", "cuda:99", "7"],
    "threads": [*WHOLE, "0", "-1"],
    "channels_last": SWITCH,
    "matmul_precision": ["low", "null"],
    "precision": ["fp16", "null"],
    "memory_bytes": [*NUMBER, "0", "-1", "nan"],
    "compile": SWITCH,
    "deterministic": ["maybe", "7.5"],
    "sampling": ["some", "null"],
    "weighting": ["size", "null"],
    "over_selection": [*NUMBER, "0.5", "nan"],
    "deadline_seconds": ["abc", "0", "-1", "nan"],
    "client_holdout": [*NUMBER, "-0.1", "1", "nan"],
    "evaluate_every_rounds": [*WHOLE, "-1"],
    "checkpoint_every_rounds": [*WHOLE, "-1"],
    "round_timeout_seconds": [*NUMBER, "-1", "0", "nan"],
    "min_clients": [*WHOLE, "0", "-1", "21"],
    "target_metric": ["accuracy", "null"],
    "target_value": [*NUMBER, "nan"],
    "resume": ["nowhere"],
    "noise_scale.decay": [*NUMBER, "-0.1", "1", "nan"],
    "noise_scale.z": [*NUMBER, "-1", "nan"],
    "noise_scale.halves": SWITCH,
    "noise_scale.cosine": SWITCH,
    "noise_scale.groups": [*WHOLE, "-1", "6", "32"],
    "noise_scale.every": [*WHOLE, "0", "-1"],
    "noise_scale.layers": SWITCH,
    "learning_rate.rule": ["cubic", "null"],
    "learning_rate.exponent": ["abc", "nan"],
    "learning_rate.max_factor": ["abc", "0", "-1", "nan"],
    "learning_rate.warmup_rounds": ["abc", "-1"],
    "learning_rate.switch_warmup_rounds": ["abc", "-1"],
    "learning_rate.decay": ["exp"],
    "time_model.compute_seconds_per_example": ["abc", "-1", "nan"],
    "time_model.speed_spread": ["abc", "-1", "nan"],
    "time_model.latency_seconds": ["abc", "-1", "nan"],
    "time_model.bandwidth_down_bytes_per_second": ["abc", "-1", "0", "nan"],
    "time_model.bandwidth_up_bytes_per_second": ["abc", "-1", "0", "nan"],
}
PARTS = {
    "model=mlp": {"model.width": ["0", "-1", "abc", "1.5"], "model.depth": ["0", "-1", "abc"]},
    "model=cnn": {
        "model.channels": ["0", "-1", "abc"],
        "model.hidden": ["0", "-1", "abc"],
        "model.norm": ["layer", "7"],
    },
    "server_optimizer=sgd": {
        "server_optimizer.lr": ["abc", "-1", "nan"],
        "server_optimizer.momentum": ["abc", "-1"],
        "server_optimizer.weight_decay": ["abc", "-1"],
    },
    "server_optimizer=adam": {
        "server_optimizer.betas": ["abc", "[2,3]", "[0.9]"],
        "server_optimizer.eps": ["-1", "abc"],
    },
    "server_optimizer=lars": {"server_optimizer.lr": ["-1", "abc"], "server_optimizer.momentum": ["-1", "abc"]},
    "server_optimizer=lamb": {"server_optimizer.lr": ["-1", "abc"], "server_optimizer.betas": ["[2,3]", "abc"]},
    "loss=cross_entropy": {"loss.label_smoothing": ["-1", "2", "abc"]},
    "client_work=local_sgd": {
        "client_work.lr": ["-1", "0", "abc"],
        "client_work.epochs": ["0", "-1", "abc"],
        "client_work.steps": ["0", "3", "abc"],
        "client_work.proximal": ["-1", "abc"],
    },
    "controller=noise_scale_switch controller.large.cohort_size=8": {
        "controller.large.cohort_size": ["0", "21", "abc"],
        "controller.large.client_batch_size": ["0", "1000", "abc"],
        "controller.up": ["0", "-1", "abc"],
        "controller.down": ["-1", "9", "abc"],
        "controller.settle_rounds": ["-1", "abc"],
    },
    "controller=adaptive controller.min_cohort_size=2 controller.max_cohort_size=8": {
        "controller.exchange_rate": ["0", "-1", "abc"],
        "controller.min_cohort_size": ["0", "9", "abc"],
        "controller.max_cohort_size": ["0", "1", "abc"],
        "controller.step": ["1", "0.5", "abc"],
    },
    "controller=two_phase_switch controller.large.cohort_size=8": {"controller.up": ["0", "abc"]},
    "controller=norm_test controller.max_cohort_size=8": {
        "controller.eta": ["0", "-1", "abc"],
        "controller.max_cohort_size": ["3", "21", "abc"],
        "controller.every_rounds": ["0", "abc"],
    },
    "controller=late_switch controller.large.cohort_size=8 rounds=40": {
        "controller.share": ["0", "1", "-1", "0.001", "abc"],
        "controller.large.cohort_size": ["21", "abc"],
    },
    "controller=seesaw rounds=40": {
        "controller.times": ["0", "9", "abc"],
        "controller.rate_factor": ["0", "2", "abc"],
        "controller.decay": ["none", "steps"],
        "controller.decay_share": ["0", "2", "abc"],
        "controller.double": ["both"],
    },
    "controller=adascale controller.phase.cohort_size=8": {"controller.scale": ["0", "0.5", "abc"]},
    "controller=goodput controller.phases.middle.cohort_size=8 controller.phases.large.cohort_size=8": {
        "controller.budget": ["0", "-1", "abc"],
        "controller.finish": ["-0.1", "1", "abc"],
        "controller.cost": ["money"],
    },
    "learning_rate.decay=wsd": {
        "learning_rate.decay": ["exp", "7"],
        "learning_rate.decay_share": ["0", "1.5", "abc"],
        "learning_rate.examples": ["0", "-5", "abc"],
        "learning_rate.max_growth": ["0.9", "abc"],
    },
    "learning_rate.decay=none": {"learning_rate.examples": ["1000"]},
    "noise_scale.z=1": {"noise_scale.memory": ["-0.1", "2", "abc"]},
    "controller=doubling": {
        "controller.every_rounds": ["0", "-1", "abc"],
        "controller.times": ["-1", "abc"],
        "controller.double": ["both", "7"],
    },
    "partitioner=dirichlet": {
        "partitioner.alpha": ["0", "-1", "abc"],
        "partitioner.min_partition_size": ["5000", "abc"],
    },
    "partitioner=shard": {"partitioner.num_shards_per_partition": ["0", "-1", "abc"]},
    "faults=some": {
        **{
            f"faults.{name}": ["-0.1", "1.1", "abc", "nan"]
            for name in ("dropout", "crash", "straggler", "heavy", "stale")
        },
        "faults.straggler_seconds": ["-1", "abc"],
        "faults.attack": ["lie", "7"],
        "faults.strength": ["abc"],
    },
    "aggregator=krum": {"aggregator.adversaries": ["-1", "abc"], "aggregator.select": ["0", "-1", "abc"]},
    "aggregator=trimmed_mean": {"aggregator.share": ["-0.1", "0.5", "abc"]},
    "aggregator=norm_bound": {"aggregator.norm": ["0", "-1", "abc"]},
    "compression=top_k": {
        "compression.stages.top_k.share": ["0", "-0.1", "1.1", "abc", "nan"],
        "compression.error_feedback": ["7", "abc"],
    },
    "compression=qsgd": {
        "compression.stages.qsgd.levels": ["0", "-1", "1.5", "40000", "abc"],
        "compression.stages.qsgd.bucket": ["0", "-1", "1.5", "abc"],
    },
    "compression=power_sgd": {"compression.stages.power_sgd.rank": ["0", "-1", "1.5", "abc"]},
    "compression=half": {"compression.stages.half.dtype": ["float8", "7"]},
    "availability=markov": {
        "availability.arrive": ["0", "2", "abc"],
        "availability.leave": ["-1", "1.5", "abc"],
        "availability.step_seconds": ["0", "abc"],
    },
    "availability=diurnal": {
        "availability.share": ["0", "2", "abc"],
        "availability.period_seconds": ["0", "-1", "abc"],
        "availability.spread": ["-1", "abc"],
    },
    "availability=trace": {"availability.file": ["no_such.parquet"]},
    "sampler=weighted": {"sampler.power": ["-1", "abc"], "sampler.correct": ["maybe"]},
    "sampler=stratified": {"sampler.strata": ["0", "1.5", "abc"], "sampler.file": ["no_such.parquet"]},
    "sampler=power_of_choice": {"sampler.ratio": ["0.5", "abc"]},
    "asynchronous=fedbuff": {
        "asynchronous.concurrency": ["0.5", "abc"],
        "asynchronous.max_staleness": ["-1", "1.5", "abc"],
        "asynchronous.staleness.exponent": ["-1", "abc"],
    },
    "metrics=calibration": {"metrics.bins": ["0", "-1", "abc", "1.5"], "metrics.replicates": ["1", "abc"]},
    "temperature=private client_holdout=0.2 privacy=client_central": {
        "temperature.relative_noise": ["0", "-1", "abc"],
        "temperature.clip_norm": ["0", "inf", "abc"],
    },
    "privacy=client_central": {
        "privacy.target_epsilon": ["-1", "0", "abc"],
        "privacy.noise_multiplier": ["-1", "abc"],
        "privacy.clip_norm": ["0", "-1", "abc"],
        "privacy.delta": ["0", "1", "2", "abc"],
        "privacy.generator": ["dice"],
        "privacy.bands": ["0", "-1", "1.5", "abc", "true"],
    },
}
UNKNOWN = ["ronds", "model.widht", "noise_scale.dekay", "learning_rate.rul", "time_model.latency", "controller.upp"]
IMPOSSIBLE = {
    "model=no_such": "model",
    "dataset=no_such": "dataset",
    "controller=no_such": "controller",
    "aggregator=median noise_scale.halves=true": "noise_scale",
    "compression=top_k aggregator=median": "compression",
    "sampler=weighted sampling=all": "sampler",
    "over_selection=2 sampling=poisson": "over_selection",
    "asynchronous=fedbuff privacy=client_central": "asynchronous",
    "asynchronous=fedbuff sampling=poisson": "sampling",
    "time_model.speeds=no_such.parquet": "speeds",
    "availability=trace": "availability.file",
    "compression=rand_k compression.error_feedback=true": "compression.error_feedback",
    "compression=qsgd noise_scale.groups=4": "noise_scale.groups",
    "executor=fused client_work=local_sgd": "executor",
    "model=cnn model.norm=batch noise_scale.halves=true": "noise_scale.halves",
    "model=cnn model.norm=batch aggregator=median": "aggregator",
    "temperature=shared": "client_holdout",
    "temperature=private client_holdout=0.2": "privacy",
    "temperature=per_client client_holdout=0.2 privacy=client_central": "temperature=private",
    "temperature=private client_holdout=0.2 privacy=client_central controller=noise_scale_switch "
    "controller.large.cohort_size=8 controller.large.client_batch_size=8": "temperature",
    "model._target_=fedbatch.models.none": "model",
    "loss._target_=os.no_such": "loss",
    "partitioner=natural": "partitioner",
    "controller=doubling controller.times=9": "cohort_size",
    "controller=adaptive controller.min_cohort_size=2 controller.max_cohort_size=50": "cohort_size",
}


def cases():
    for name, values in SCALARS.items():
        for value in values:
            yield [f"{name}={value}"], name
    for part, numbers in PARTS.items():
        for name, values in numbers.items():
            for value in values:
                others = [o for o in part.split() if not o.startswith(f"{name}=")]
                yield [*others, f"{name}={value}"], name
    for name in UNKNOWN:
        yield [f"{name}=1"], name
    for words, name in IMPOSSIBLE.items():
        yield words.split(), name


CASES = list(cases())
TORCH_SAYS = {"lr": "learning rate", "betas": "beta parameter"}


def words(overrides):
    changed = {o.split("=")[0] for o in overrides}
    base = [o for o in BASE if o.split("=")[0] not in changed and not ("model" in changed and o.startswith("model."))]
    return [*base, *overrides]


@pytest.mark.slow
@pytest.mark.parametrize(("overrides", "field"), CASES, ids=[" ".join(o) for o, _ in CASES])
def test_a_bad_config_is_one_line_that_names_the_field(overrides, field, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "argv", ["fedbatch", *words(overrides), "run_dir=out"])
    with pytest.raises(SystemExit) as refused:
        app.main()
    shown = capsys.readouterr()
    assert refused.value.code == 2, shown.err
    assert shown.out == "" and shown.err.count("\n") == 1 and shown.err.startswith("fedbatch: ")
    name = field.split(".")[-1]
    assert name in shown.err or TORCH_SAYS.get(name, name) in shown.err
