"""Names of parts that stand in people's YAML and in saved runs keep working."""

import json
from pathlib import Path

import pytest
from hydra.utils import get_object
from omegaconf import OmegaConf

from fedbatch.config import schema
from fedbatch.config.compose import config_dir
from fedbatch.config.names import ALIASES, public
from fedbatch.config.schema import identity_of, parse
from fedbatch.core.errors import ConfigError

OF_0_1 = """
fedbatch.active.badge.Badge
fedbatch.active.coreset.CoreSet
fedbatch.active.learning.ActiveLearning
fedbatch.active.selectors.ClusterMargin
fedbatch.active.selectors.Entropy
fedbatch.active.selectors.Margin
fedbatch.active.selectors.Random
fedbatch.batch.controllers.Adaptive
fedbatch.batch.controllers.Fixed
fedbatch.batch.controllers.NoiseScaleSwitch
fedbatch.batch.controllers.Schedule
fedbatch.batch.controllers.doubling
fedbatch.batch.goodput.Goodput
fedbatch.batch.learning_rate.LearningRate
fedbatch.batch.phases.Phase
fedbatch.clients.fedsgd.FedSGD
fedbatch.clients.local_sgd.LocalSGD
fedbatch.data.bundled.breast_cancer
fedbatch.data.bundled.digits
fedbatch.data.fashion.fashion_mini
fedbatch.data.fashion.fashion_mnist
fedbatch.data.fashion.fashion_pixels
fedbatch.data.hub.hugging_face
fedbatch.data.partition.drawn
fedbatch.data.partition.from_flower
fedbatch.data.pools.long_tail
fedbatch.data.pools.redundant
fedbatch.data.shakespeare.shakespeare_roles
fedbatch.faults.Faults
fedbatch.losses.AvUC
fedbatch.losses.Brier
fedbatch.losses.ConfidencePenalty
fedbatch.losses.CrossEntropy
fedbatch.losses.FLSD53
fedbatch.losses.Focal
fedbatch.losses.FrozenBins
fedbatch.losses.MMCE
fedbatch.losses.SAvUC
fedbatch.losses.SBECE
fedbatch.losses.SBECELabelBinned
fedbatch.losses.Sum
fedbatch.losses.cross_entropy.CrossEntropy
fedbatch.losses.focal.Focal
fedbatch.losses.sum.Sum
fedbatch.metrics.report.Calibration
fedbatch.metrics.scaling.ClientTemperature
fedbatch.metrics.scaling.PrivateTemperature
fedbatch.metrics.scaling.SharedTemperature
fedbatch.metrics.scaling.SoftBinTemperature
fedbatch.models.autoencoder.autoencoder
fedbatch.models.cnn.cnn
fedbatch.models.linear.logistic
fedbatch.models.linear.mlp
fedbatch.models.resnet.resnet18
fedbatch.models.transformer.bert
fedbatch.models.transformer.gpt
fedbatch.optim.LAMB
fedbatch.optim.LARS
fedbatch.optim.MERIT
fedbatch.optim.lamb.LAMB
fedbatch.privacy.mechanisms.ClientCentral
fedbatch.privacy.mechanisms.ExampleDistributed
fedbatch.privacy.mechanisms.ExampleLocal
fedbatch.report.at_end.ReportAtEnd
fedbatch.robust.Krum
fedbatch.robust.NormBound
fedbatch.robust.TrimmedMean
fedbatch.robust.coordinate_median
fedbatch.runtime.local.Local
fedbatch.runtime.ray.Ray
fedbatch.time_model.TimeModel
fedbatch.trackers.mlflow.MLflow
fedbatch.trackers.tensorboard.TensorBoard
fedbatch.trackers.wandb.WandB
""".split()


@pytest.mark.parametrize("name", OF_0_1)
def test_a_name_of_0_1_is_read_as_the_public_one(name):
    now = public({"_target_": name})["_target_"]
    package, _, word = now.rpartition(".")
    assert package.count(".") == 1 and word == name.rpartition(".")[2]
    module = get_object(package)
    assert word in module.__all__ and callable(getattr(module, word)) and word in dir(module)
    assert get_object(now) is getattr(module, word)


def test_conf_uses_public_names_only():
    found = list(targets_in_conf())
    assert len(found) > 90
    for target in found:
        if target.startswith("fedbatch."):
            package, _, word = target.rpartition(".")
            assert target not in ALIASES and word in get_object(package).__all__, target


def targets_in_conf():
    for path in Path(config_dir()).rglob("*.yaml"):
        yield from targets(OmegaConf.to_container(OmegaConf.load(path)))


def targets(node):
    if isinstance(node, dict):
        yield from [node["_target_"]] if "_target_" in node else []
        for value in node.values():
            yield from targets(value)
    if isinstance(node, list):
        for value in node:
            yield from targets(value)


def test_a_config_with_names_of_before_is_the_same_run(make_config):
    now = json.loads(make_config("controller=noise_scale_switch").to_json())
    back = {new: old for old, new in ALIASES.items()}

    def older(node):
        if isinstance(node, dict):
            return {key: back.get(v, v) if key == "_target_" else older(v) for key, v in node.items()}
        return node

    before = older(now)
    assert before["controller"]["small"]["_target_"] == "fedbatch.batch.phases.Phase"
    assert identity_of(before) == identity_of(now) == parse(before).identity()
    assert parse(before) == parse(now)


def test_a_missing_key_is_its_default_and_the_same_run(make_config):
    values = json.loads(make_config("noise_scale.decay=0.98", "noise_scale.memory=0").to_json())
    less = {name: value for name, value in values.items() if name not in ("threads", "small_clients", "version")}
    less["noise_scale"] = {"decay": 0.98}
    assert parse(less) == parse(values)
    assert identity_of(less) == identity_of(values) != identity_of(less | {"small_clients": "refuse"})
    assert identity_of(less | {"noise_scale": {"decay": 0.9}}) != identity_of(less)


def test_a_part_that_is_missing_is_named(make_config):
    values = json.loads(make_config().to_json())
    del values["model"]
    with pytest.raises(ConfigError, match="^model is missing from the config"):
        parse(values)


def test_a_config_of_a_newer_version_is_refused_in_one_line(make_config):
    values = json.loads(make_config().to_json()) | {"version": schema.VERSION + 1, "later": 1}
    with pytest.raises(ConfigError, match=r"written by a newer fedbatch \(version 2\); update fedbatch"):
        parse(values)


def test_a_missing_key_means_what_a_new_run_starts_with_but_for_what_has_changed_since():
    """The defaults are what saved runs mean; conf/ says what a new run starts with, and may have left them."""
    begun = OmegaConf.to_container(OmegaConf.load(f"{config_dir()}/config.yaml"), resolve=False)
    assert (begun["noise_scale"].pop("decay"), begun["noise_scale"].pop("memory")) == (0.9, 0.2)
    saved = schema.DEFAULTS | {"noise_scale": {**schema.DEFAULTS["noise_scale"]}}
    assert (saved["noise_scale"].pop("decay"), saved["noise_scale"].pop("memory")) == (0.98, 0.0)
    assert {name: begun[name] for name in saved if name in begun} == {
        name: value for name, value in saved.items() if name in begun
    }
