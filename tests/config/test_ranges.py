"""Every number in conf/ has a range, which its own value keeps; what is outside is refused with its key."""

from pathlib import Path

import pytest
from omegaconf import OmegaConf

from fedbatch.config.compose import config_dir
from fedbatch.config.ranges import RANGES, Range, check, range_of
from fedbatch.core.errors import ConfigError

ROOT = Path(config_dir())
FILES = [ROOT / "config.yaml", *(p for p in sorted(ROOT.glob("*/*.yaml")) if p.parent.name != "experiment")]


def group_of(path):
    """Where the keys of a file belong: a mechanism brings numbers of the run too."""
    is_whole = path.parent == ROOT or path.read_text().startswith("# @package _global_")
    return "" if is_whole else path.parent.name


def numbers(node, key):
    if isinstance(node, dict):
        for name, value in node.items():
            yield from numbers(value, f"{key}.{name}".removeprefix("."))
    for value in node if isinstance(node, list) else [node]:
        if isinstance(value, int | float) and not isinstance(value, bool):
            yield key, value


@pytest.mark.parametrize("path", FILES, ids=lambda p: f"{p.parent.name}/{p.stem}")
def test_every_number_has_a_range_and_keeps_it(path):
    for key, value in numbers(OmegaConf.to_container(OmegaConf.load(path)), group_of(path)):
        allowed = range_of(key)
        assert allowed is not None, f"{key} has no range"
        assert value in allowed, f"{key}={value} is outside {allowed.text}"


def test_no_range_is_for_nothing():
    keys = [key for p in FILES for key, _ in numbers_and_nulls(p)]
    for pattern in RANGES:
        assert any(range_of(key) == Range(RANGES[pattern]) for key in keys), pattern


def numbers_and_nulls(path):
    def walk(node, key):
        if isinstance(node, dict):
            for name, value in node.items():
                yield from walk(value, f"{key}.{name}".removeprefix("."))
        else:
            yield key, node

    return walk(OmegaConf.to_container(OmegaConf.load(path)), group_of(path))


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"server_optimizer": {"lr": 0}}, r"server_optimizer.lr must be in \(0, 1e38\] \(got 0\)"),
        ({"server_optimizer": {"lr": float("inf")}}, "server_optimizer.lr .* inf"),
        ({"server_optimizer": {"lr": float("nan")}}, "server_optimizer.lr .* nan"),
        ({"server_optimizer": {"momentum": 2}}, r"momentum must be in \[0, 1\)"),
        ({"server_optimizer": {"betas": [0.9, 1.0]}}, "server_optimizer.betas .* 1.0"),
        ({"privacy": {"clip_norm": 1e308}}, "privacy.clip_norm"),
        ({"privacy": {"target_epsilon": 1e9}}, "privacy.target_epsilon"),
        ({"controller": {"large": {"client_work": {"lr": -1.0}}}}, "controller.large.client_work.lr"),
        ({"controller": {"phases": {"middle": {"cohort_size": 0}}}}, "controller.phases.middle.cohort_size"),
    ],
)
def test_nonsense_is_refused_with_its_key(values, message):
    with pytest.raises(ConfigError, match=message):
        check(values)


def test_what_is_no_number_or_not_known_passes():
    check({"model": {"own": 1e300, "width": None, "flag": True}, "privacy": {"clip_norm": float("inf")}})
