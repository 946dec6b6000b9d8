import json
import subprocess
import sys

import pytest

from fedbatch.config.schema import from_json, parse
from fedbatch.core.errors import ConfigError
from fedbatch.setup.validate import validate


def test_json_round_trip(make_config):
    config = make_config()
    assert from_json(config.to_json()) == config


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"rounds": 0}, "rounds must be in \\[1, 1e12\\] \\(got 0\\)"),
        ({"rounds": "many"}, "rounds must be a whole number"),
        ({"cohort_size": 50}, r"cohort_size \(50\) is larger than population \(20\)"),
        ({"nodes": 50}, r"nodes \(50\) is larger than population"),
        ({"client_batch_size": 0}, "client_batch_size must be in \\[1,"),
        ({"executor": "lop"}, "executor must be one of .*did you mean loop"),
        ({"sampling": "random"}, "sampling must be one of auto, uniform, poisson, all"),
        ({"weighting": "example"}, "did you mean examples"),
        ({"target_metric": "accuracy"}, "target_metric must be one of .*did you mean test_accuracy"),
        ({"client_holdout": 1.0}, r"client_holdout must be in \[0, 1\)"),
        ({"seed": -1}, "seed must be in \\[0,"),
        ({"ronds": 3}, "unknown key 'ronds'; did you mean rounds"),
    ],
)
def test_what_cannot_run_names_field_and_remedy(make_config, change, message):
    values = json.loads(make_config().to_json()) | change
    with pytest.raises(ConfigError, match=message) as caught:
        parse(values)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        (["controller.large.cohort_size=30"], r"controller.large.cohort_size \(30\) is larger than population"),
        (["controller.large.cohort_size=1", "controller.large.client_batch_size=1"], "smaller than controller.small"),
        (["controller.up=0.01"], "need 0 <= down < up"),
        (["learning_rate.rule=cubic"], "learning_rate: rule must be one of"),
        (["time_model.latency_seconds=-1"], "time_model.latency_seconds must be in \\[0,"),
        (["dataset=fashion_mnist", "dataset.folder=/nowhere"], "dataset.folder: .*dataset=fashion_mini"),
        (["partitioner.kind=IidPartitoner"], "did you mean IidPartitioner"),
    ],
)
def test_parts_are_checked_before_the_run(make_config, overrides, message):
    with pytest.raises(ConfigError, match=message) as caught:
        validate(make_config(*overrides))
    assert "\n" not in str(caught.value)


def test_a_batch_that_a_client_cannot_fill_is_a_config_error_for_gradients_only(make_config):
    from fedbatch.setup import task

    big = "controller.large.client_batch_size=500"
    with pytest.raises(ConfigError, match="client_batch_size .500, phase large. is larger than the largest client's"):
        task.load(make_config(big).to_json())
    assert task.load(make_config(big, "client_work=local_sgd").to_json()).controller.phases[1].client_batch_size == 500


def test_a_model_that_cannot_be_built_is_a_config_error(make_config):
    from fedbatch.setup import task

    with pytest.raises(ConfigError, match=r"model.width must be in \[1, 1e6\] \(got 0\)"):
        make_config("model.width=0")
    with pytest.raises(ConfigError, match=r"noise_scale.halves: examples of a batch meet .* as batch norm"):
        task.load(make_config("model=cnn", "model.norm=batch", "noise_scale.halves=true").to_json())
    with pytest.raises(ConfigError, match="device=cuda:99 is not available"):
        task.load(make_config("device=cuda:99").to_json())


def test_checking_needs_neither_torch_nor_flower(make_config):
    text = make_config().to_json()
    code = "import sys; from fedbatch.setup.validate import validate; from fedbatch.config.schema import from_json; "
    code += "validate(from_json(sys.argv[1])); sys.exit('torch' in sys.modules or 'flwr' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code, text]).returncode == 0


def test_an_executor_that_cannot_do_the_work_is_a_config_error(make_config):
    from fedbatch.setup import task

    with pytest.raises(ConfigError, match=r"executor=fused cannot run this: clients take local steps.*executor=auto"):
        task.load(make_config("executor=fused", "client_work=local_sgd").to_json())
