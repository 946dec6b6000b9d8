"""Hydra's and OmegaConf's errors, said in one line with a suggestion."""

import re
from collections.abc import Iterable
from dataclasses import fields
from pathlib import Path

from omegaconf import OmegaConf

from fedbatch.config.checks import did_you_mean
from fedbatch.config.compose import config_dir
from fedbatch.config.schema import RunConfig

WORDS = {
    "lr": "server_optimizer.lr, or client_work.lr with client_work=local_sgd",
    "learning_rate.lr": "server_optimizer.lr",
    "optimizer": "server_optimizer",
    "momentum": "server_optimizer.momentum",
    "weight_decay": "server_optimizer.weight_decay",
    "num_clients": "population",
    "n_clients": "population",
    "clients": "population, or cohort_size for those of a round",
    "clients_per_round": "cohort_size",
    "num_clients_per_round": "cohort_size",
    "fraction_fit": "cohort_size, a number of clients",
    "batch_size": "client_batch_size",
    "num_rounds": "rounds",
    "epochs": "client_work.epochs with client_work=local_sgd",
    "local_epochs": "client_work.epochs with client_work=local_sgd",
    "local_steps": "client_work.steps with client_work=local_sgd client_work.epochs=null",
    "mu": "client_work.proximal with client_work=local_sgd",
    "algorithm": "client_work, such as scaffold, feddyn, fednova, ditto",
    "client_optimizer": "client_work=local_momentum, local_adam or local_adamw",
    "strategy": "client_work, server_optimizer or aggregator",
    "alpha": "partitioner.alpha with partitioner=dirichlet",
    "partition": "partitioner",
    "epsilon": "privacy.target_epsilon with privacy=example_local or client_central",
    "target_epsilon": "privacy.target_epsilon with privacy=example_local or client_central",
    "delta": "privacy.delta with privacy=example_local or client_central",
    "clip": "privacy.clip_norm with privacy=example_local or client_central",
    "clip_norm": "privacy.clip_norm with privacy=example_local or client_central",
    "noise_multiplier": "privacy.noise_multiplier with privacy=example_local or client_central",
    "max_grad_norm": "privacy.clip_norm with privacy=example_local or client_central",
    "num_workers": "nodes",
    "gpu": "device=cuda",
    "cuda": "device=cuda",
    "output_dir": "run_dir",
    "out": "run_dir",
    "steps": "rounds, or client_work.steps with client_work=local_sgd",
    "network": "model",
    "data": "dataset",
    "attack": "faults.attack with faults=some",
}
"""What users of other tools say, and the keys that mean it here."""


NAME = re.compile(r"['\"]?[A-Za-z_][\w./-]*['\"]?")


def empty_choices(arguments: Iterable[str]) -> str | None:
    """What is wrong with a group that is given no name, such as ``dataset=null``, which Hydra fails on; or None."""
    for argument in arguments:
        name, _, choice = argument.lstrip("+").partition("=")
        choices = sorted(path.stem for path in Path(config_dir(), name).glob("*.yaml")) if name.isidentifier() else []
        words = [word.strip() for word in choice.strip("[] ").split(",")]
        if choices and "=" in argument and any(map(is_no_name, words)):
            return f"{argument}: {name} needs a choice: {', '.join(choices)}"
    return None


def is_no_name(word: str) -> bool:
    """Whether Hydra takes a word for something else than a string, or it cannot be a file's name."""
    return not NAME.fullmatch(word) or word.lower() in ("null", "true", "false", "nan", "inf")


def wrong_folder(arguments: Iterable[str]) -> str | None:
    """What is wrong with the folder of a run as it is given on the command line; or None."""
    given = dict(argument.split("=", 1) for argument in arguments if argument.startswith(("run_dir=", "resume=")))
    if len(given) == 2:
        return f"run_dir: resume={given['resume']} goes on in its own folder; leave run_dir out"
    for name, value in given.items():
        if name == "run_dir" and value in ("", "''", '""', "null"):
            return "run_dir must name a folder (got nothing)"
        if Path(value).is_file():
            return f"{name}: {value} is a file; give a folder"
    return None


def dashed(arguments: Iterable[str]) -> str | None:
    """What is wrong with a setting that is written like a flag, or with Hydra's name for the folder; or None."""
    keys = {each.name for each in fields(RunConfig)}
    for argument in arguments:
        if (match := re.match(r"--?([a-z_]\w*)(\.[\w.]+)?=", argument)) and match[1] in keys:
            return f"{argument}: settings have no dashes; write {argument.lstrip('-')}"
        if argument.startswith(("hydra.run.dir=", "hydra.sweep.dir=")):
            return f"{argument}: the folder is called run_dir here; write run_dir={argument.partition('=')[2]}"
    return None


def explain(error: BaseException) -> str:
    """One line that names the field and the remedy."""
    text = str(error)
    if match := re.search(r"Ambiguous value for argument '([^']+)'", text):
        name, _, values = match.group(1).partition("=")
        return (
            f"{name}={values} is several runs: add -m, as in fedbatch -m {name}={values}; a list is {name}=[{values}]"
        )
    if "expecting <EOF>" in text or "token recognition" in text:
        line = text.strip().splitlines()[0]
        return f"a value cannot be read ({line}); close each ${{...}}, and quote other special characters"
    if match := re.search(r"Error parsing override '([^']*)'", text):
        return f"{match.group(1)!r} is no setting; write key=value, e.g. rounds=100"
    if "Cannot assign" in text and "Dict" in text and (key := getattr(error, "full_key", None)) is not None:
        return f"{key or 'a group'} has keys of its own and takes no single value; set one of them, e.g. {key}.KEY=..."
    if "nterpolation" in text and (key := getattr(error, "full_key", None)):
        return f"{key}: {text.strip().splitlines()[0]}"
    if match := re.search(r"Key '([^']+)' is not in struct", text + str(error.__cause__)):
        path = re.search(r"full_key: (\S+)", text + str(error.__cause__))
        name = path.group(1) if path else match.group(1)
        return unknown(name)
    if match := re.search(r"Could not override '([^']+)'", text):
        return unknown(match.group(1))
    if match := re.search(r"Could not find '([^'/]+)/([^']+)'", text):
        group, choice = match.groups()
        choices = sorted(path.stem for path in Path(config_dir(), group).glob("*.yaml"))
        if group == "dataset" and Path(choice).exists():
            return f"{group}={choice} is a file: write dataset=hugging_face dataset.source={choice} (docs/data.md)"
        listed = f"choose from {', '.join(choices)}" if choices else f"there is no group {group!r}"
        return f"{group}={choice} does not exist; {listed}{did_you_mean(choice, choices)}"
    return text.strip().splitlines()[0]


def unknown(name: str) -> str:
    """A key that this run does not have, though another choice of its group may.

    >>> unknown("active.queries").split(";")[0]
    'active.queries: the chosen active has no such key'
    """
    known, group = known_keys(), name.split(".")[0]
    if name in known:
        return (
            f"{name}: the chosen {group} has no such key; choose another with {group}=... (a resumed run keeps its own)"
        )
    if name in WORDS:
        return f"unknown key {name!r}; here it is {WORDS[name]}"
    return f"unknown key {name!r}{did_you_mean(name, known)}"


def known_keys() -> list[str]:
    """Dotted names of all keys of the main config and of all choices of its groups."""
    keys: list[str] = []
    root = Path(config_dir())
    for path in sorted(root.rglob("*.yaml")):
        is_global = path.parent == root or path.read_text().startswith("# @package _global_")
        _walk(OmegaConf.to_container(OmegaConf.load(path)), [] if is_global else [path.parent.name], keys)
    return [*dict.fromkeys(keys)]


def _walk(node: object, prefix: list[str], keys: list[str]) -> None:
    if prefix:
        keys.append(".".join(prefix))
    if isinstance(node, dict):
        for name, value in node.items():
            _walk(value, [*prefix, str(name)], keys)
