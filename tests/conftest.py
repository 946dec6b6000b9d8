"""Shared fixtures: one thread, a private cache, and configs of runs that take a fraction of a second."""

import json
import logging
import os

os.environ["OMP_WAIT_POLICY"] = "PASSIVE"  # before torch is imported
os.environ["HF_HUB_OFFLINE"] = "1"

from collections.abc import Callable
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hydra import compose, initialize_config_dir
from omegaconf import OmegaConf

from fedbatch.api import execute
from fedbatch.config.compose import config_dir
from fedbatch.config.schema import RunConfig, parse
from fedbatch.data.dataset import Dataset
from fedbatch.executors import choose
from fedbatch.results.store import read_rows
from fedbatch.server import exchange
from fedbatch.server.checkpoint import load_latest
from fedbatch.server.state import ServerState
from fedbatch.setup import task

torch.set_num_threads(1)

TINY = ("dataset=digits", "population=20", "cohort_size=4", "client_batch_size=4", "rounds=4", "model.width=8")
LARGE = ("controller.large.cohort_size=8", "controller.large.client_batch_size=8")
PRIVATE = ("controller=fixed", "privacy.target_epsilon=null", "executor=fused")


@pytest.fixture(scope="session", autouse=True)
def private_cache(tmp_path_factory: pytest.TempPathFactory) -> None:
    os.environ["FEDBATCH_CACHE"] = str(tmp_path_factory.mktemp("cache"))


def composed(overrides: tuple[str, ...]) -> dict[str, Any]:
    """The values that Hydra composes, which takes longer than a tiny run."""
    return json.loads(_composed(overrides))


@lru_cache(maxsize=512)
def _composed(overrides: tuple[str, ...]) -> str:
    with initialize_config_dir(config_dir(), version_base="1.3"):
        return json.dumps(OmegaConf.to_container(compose("config", list(overrides)), resolve=True))


@pytest.fixture
def make_config(tmp_path: Path) -> Callable[..., RunConfig]:
    """A tiny run on digits: ``make_config("model=cnn", "rounds=2")``; base overrides can be left out."""

    def make(*overrides: str, base: tuple[str, ...] = TINY, folder: str = "run") -> RunConfig:
        changed = {o.split("=")[0] for o in overrides}
        if "model" in changed:
            base = tuple(o for o in base if not o.startswith("model."))
        own = tuple(o for o in LARGE if o.split("=")[0] not in changed)
        # The default large phase needs more clients than there are.
        plain = {o.split("=")[0] for o in (*base, *overrides)} & {"controller", "privacy", "experiment", "resume"}
        values = composed((*base, *overrides, *(() if plain else own)))
        if plain and "large" in values["controller"]:
            values = composed((*base, *overrides, *own))
        return parse(values | ({} if "run_dir" in changed else {"run_dir": str(tmp_path / folder)}))

    return make


@pytest.fixture
def make_task(make_config):
    """``make_task("example_local", "privacy.noise_multiplier=1")``: a loaded task of a private run."""

    def make(mechanism, *overrides, **options):
        config = make_config(f"privacy={mechanism}", *PRIVATE, "privacy.noise_multiplier=1.0", *overrides, **options)
        return task.load(config.to_json())

    return make


@pytest.fixture(autouse=True)
def fresh_log() -> None:
    """A command line that an earlier test has called sets up logging for its process."""
    logging.getLogger("fedbatch").setLevel(logging.NOTSET)


@pytest.fixture(autouse=True)
def fresh_task() -> None:
    """No task of an earlier test is reused."""
    task.forget()
    exchange.tell_once.cache_clear()
    exchange.news.cache_clear()
    choose.tell_once.cache_clear()


def run(config: RunConfig) -> tuple[list[dict[str, Any]], dict[str, Any], ServerState]:
    """Run in this process and return the record, the summary and the state in the last checkpoint."""
    execute(config)
    folder = Path(config.run_dir)
    summary = json.loads((folder / "summary.json").read_text())
    return read_rows(folder / "rounds.jsonl"), summary, load_latest(folder / "checkpoints")


def toy_dataset(examples: int = 60, features: int = 5, classes: int = 3, seed: int = 0) -> Dataset:
    """Gaussian inputs with random labels."""
    rng = np.random.default_rng(seed)
    x = rng.normal(size=(examples + 10, features)).astype(np.float32)
    y = rng.integers(classes, size=examples + 10)
    return Dataset("toy", x[:examples], y[:examples], x[examples:], y[examples:], classes)


@pytest.fixture
def compiler():
    """Skips where there is no C compiler."""
    from fedbatch.executors import compiled

    try:
        compiled.library("chain.c", torch.float64), compiled.product(torch.float64)
    except compiled.NotCompiledError as error:
        pytest.skip(str(error))
