"""Every YAML: its keys are its target's arguments, and it runs two tiny rounds."""

import importlib
import inspect
import json
from pathlib import Path

import pytest
from omegaconf import OmegaConf

from fedbatch.api import execute
from fedbatch.config.compose import config_dir

ROOT = Path(config_dir())
FILES = sorted(ROOT.glob("*/*.yaml"))
INJECTED = {"input_shape", "num_classes", "dataset", "params", "places", "label_kind"}


def nodes(value):
    if isinstance(value, dict):
        if "_target_" in value:
            yield value
        for child in value.values():
            yield from nodes(child)


@pytest.mark.parametrize("path", [ROOT / "config.yaml", *FILES], ids=lambda p: f"{p.parent.name}/{p.stem}")
def test_every_argument_is_listed(path):
    for node in nodes(OmegaConf.to_container(OmegaConf.load(path), resolve=False)):
        module, _, name = node["_target_"].rpartition(".")
        if module.startswith("torch"):
            continue  # torch's optimizers have switches (foreach, fused ...) that are no part of an experiment
        parameters = inspect.signature(getattr(importlib.import_module(module), name)).parameters.values()
        own = {p.name for p in parameters if p.kind is not p.VAR_KEYWORD} - INJECTED
        handled = {"output", "groups"} if path.parent.name == "server_optimizer" else {"output"}
        keys = {key for key in node if not key.startswith("_")} - handled
        if any(p.kind is p.VAR_KEYWORD for p in parameters):
            assert own <= keys
        else:
            assert keys - INJECTED == own


@pytest.mark.parametrize("path", FILES, ids=lambda p: f"{p.parent.name}/{p.stem}")
def test_says_how_to_use_it(path):
    comments = [line for line in path.read_text().splitlines()[:2] if line.startswith("# ")]
    assert any(f"fedbatch {path.parent.name}={path.stem}" in line for line in comments)


TEXT = ["dataset=shakespeare_roles", "dataset.min_sequences=300"]  # half a second of evaluation
TINY_TRANSFORMER = ["model.layers=1", "model.heads=2", "model.width=8"]
NO_TARGET = ["privacy.target_epsilon=null", "privacy.noise_multiplier=2.0"]  # calibrating takes seconds
TWO_CLASSES, SHAPES = "dataset=breast_cancer", (("dataset", "shapes"), ("model", "model"))
SETTINGS = {
    "model/gpt": [*TEXT, *TINY_TRANSFORMER],
    "model/bert": [*TEXT, "dataset.task=masked", *TINY_TRANSFORMER],
    "dataset/shakespeare_roles": ["dataset.min_sequences=300", "model=gpt", *TINY_TRANSFORMER],
    "model/cnn": ["model.channels=4", "model.hidden=8"],
    "client_work/fedbn": ["model=cnn", "model.channels=4", "model.hidden=8", "model.norm=group", "model.groups=2"],
    "client_work/diloco": ["client_work.steps=3"],
    "model/resnet18": ["model.width=8"],
    "dataset/fashion_mini": ["model.width=8"],
    "controller/goodput": ["controller.phases.middle.cohort_size=8", "controller.phases.large.cohort_size=8"],
    "controller/gain": [
        "controller.phases.middle.cohort_size=8",
        "controller.phases.large.cohort_size=8",
        "noise_scale.groups=4",
        "noise_scale.every=1",
    ],
    "experiment/switching": ["controller.large.cohort_size=8"],
    **{
        f"experiment/{name}": ["population=64", "cohort_size=64", "training_set_examples=20"]
        for name in ("critical_batch_size", "width")
    },
    "experiment/noise_scale_conditions": ["population=32", "cohort_size=8", "partitioner.min_partition_size=4"],
    "experiment/language": [*TEXT, "population=33", *TINY_TRANSFORMER],
    "experiment/masked_language": [*TEXT, "dataset.context=64", "population=33", *TINY_TRANSFORMER],
    "dataset/fashion_pixels": ["model=autoencoder", "model.width=8", "model.code=4"],
    "model/autoencoder": ["dataset=fashion_pixels", "model.width=8", "model.code=4"],
    **{
        f"active/{name}": ["active.queries=1"]
        for name in ("random", "margin", "entropy", "coreset", "badge", "cluster_margin")
    },
    "aggregator/krum": ["cohort_size=5"],
    "availability/trace": [f"availability.file={ROOT.parent}/tests/availability/everyone.csv"],
    "partitioner/pathological": ["partitioner.num_classes_per_partition=5"],
    "controller/adaptive": ["controller.min_cohort_size=4", "controller.max_cohort_size=8"],
    "controller/schedule": ["controller.phases.large.cohort_size=8", "controller.phases.large.client_batch_size=4"],
    "controller/adascale": ["controller.phase.cohort_size=8"],
    "controller/late_switch": [
        "controller.share=0.3",
        "controller.large.cohort_size=8",
        "controller.large.client_batch_size=4",
    ],
    "controller/norm_test": ["controller.max_cohort_size=8"],
    "controller/seesaw": ["controller.times=1"],
    **{f"loss/{name}": ["task=regression", "server_optimizer.lr=0.001"] for name in ("mse", "mae", "huber")},
    **{place: [TWO_CLASSES, "task=multi_label"] for place in ("loss/bce", "task/multi_label")},
    **{
        place: [
            *(f"{part}._target_=tests.tasks.shapes.{name}" for part, name in SHAPES),
            "task=segmentation",
            "~model.width",
            "~model.depth",
        ]
        for place in ("loss/pixel_cross_entropy", "task/segmentation")
    },
    "task/language": [*TEXT, "model=gpt", *TINY_TRANSFORMER],
    "task/regression": ["server_optimizer.lr=0.001"],
    "temperature/shared": ["client_holdout=0.2"],
    "temperature/soft_bins": ["client_holdout=0.2"],
    "temperature/per_client": ["client_holdout=0.2"],
    "temperature/private": ["client_holdout=0.2", "privacy=client_central", "controller=fixed", *NO_TARGET],
    "privacy/example_distributed": ["privacy.min_clients=4"],
    "privacy/client_ftrl": ["controller=fixed"],
    "privacy/example_ftrl": ["controller=fixed", "cohort_size=20"],
    **{
        f"controller/{name}": ["controller.large.cohort_size=8", "controller.large.client_batch_size=8"]
        for name in ("noise_scale_switch", "two_phase_switch")
    },
}
NEEDS_MORE_DATA = {
    "dataset/arrays",
    "dataset/fashion_mnist",
    "dataset/hugging_face",
    "dataset/hugging_face_text",
    "partitioner/natural",
}
HAS_ITS_OWN_TEST = {
    "runtime/ray",
    "tracker/mlflow",
    "tracker/trackio",
    "tracker/wandb",
}  # tests/runtime, tests/trackers
HAS_ITS_OWN_TEST |= {"model/hf_classifier", "model/hf_causal_lm"}  # tests/models/test_hugging_face
RUNNABLE = [p for p in FILES if f"{p.parent.name}/{p.stem}" not in NEEDS_MORE_DATA | HAS_ITS_OWN_TEST]


@pytest.mark.parametrize("path", RUNNABLE, ids=lambda p: f"{p.parent.name}/{p.stem}")
def test_two_tiny_rounds(make_config, path):
    group, choice = path.parent.name, path.stem
    override = f"{group}={choice}"
    extra = ["client_batch_size=2", "controller.large.client_batch_size=2"] if group == "partitioner" else []
    config = make_config(override, "rounds=2", *extra, *SETTINGS.get(f"{group}/{choice}", []))
    execute(config)
    assert json.loads((Path(config.run_dir) / "summary.json").read_text())["rounds"] == 2
