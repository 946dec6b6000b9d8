"""Groups of parameters with options of their own in one torch optimizer, told apart by names of parameters."""

from collections.abc import Mapping, Sequence
from fnmatch import fnmatchcase
from typing import Any

from torch import Tensor

from fedbatch.config.build import build
from fedbatch.core.errors import ConfigError

FIELD = "server_optimizer.groups"
FACTOR = "lr_factor"
"""A group's learning rate over that of the optimizer, so that their ratio holds whatever scales the rate."""
MOST = 1e6

Group = dict[str, Any]
Named = list[tuple[str, Tensor]]


def optimizer_of(node: Mapping[str, Any], named: Named, by_name: bool) -> Any:
    """The optimizer of a config on parameters, with a group of its own for each that ``groups`` names.

    Parameters that are in no group come last, with the optimizer's own options. What a group may say is what the
    optimizer's constructor takes and keeps in its ``param_groups``: each group is built as an optimizer of its own.

    Args:
        node: ``_target_`` and options; ``groups`` maps any name to ``{names: [patterns], lr_factor, options ...}``.
        named: names and tensors of all parameters.
        by_name: whether the optimizer asks for pairs of name and tensor.

    Raises:
        ConfigError: a pattern that no name matches, a parameter in two groups, or an option that the optimizer refuses.
    """
    own = {name: value for name, value in node.items() if name != "groups"}
    groups = checked(node.get("groups") or {})
    whole = build("server_optimizer", own, _given(named, by_name))
    if not groups:
        return whole
    whole.param_groups.clear()
    owners = owners_of({name: group["names"] for name, group in groups.items()}, [name for name, _ in named])
    for name, group in [*groups.items(), (None, {})]:
        members = [pair for pair in named if owners.get(pair[0]) == name]
        if not members:  # of the rest
            continue
        options = {option: value for option, value in group.items() if option != "names"}
        part = _part(name, own, options, _given(members, by_name))
        whole.state.update(part.state)
        for each in part.param_groups:
            whole.add_param_group(each)
    return whole


def set_rate(optimizer: Any, lr: float) -> None:
    """Give every group its share of a learning rate."""
    for group in optimizer.param_groups:
        group["lr"] = lr * group.get(FACTOR, 1.0)


def checked(groups: Any) -> dict[str, Group]:
    """The groups as they must be written.

    Raises:
        ConfigError: no mapping of mappings, or one without a list of ``names``.
    """
    shape = "{norms: {names: ['*norm*'], weight_decay: 0}}"
    if not isinstance(groups, Mapping) or not all(isinstance(group, Mapping) for group in groups.values()):
        raise ConfigError(f"{FIELD} must be a mapping of names to options, as {shape} (got {groups!r})")
    for name, group in groups.items():
        patterns = group.get("names")
        if not isinstance(patterns, list | tuple) or not patterns or not all(isinstance(p, str) for p in patterns):
            raise ConfigError(f"{FIELD}.{name}.names must be a list of patterns, as in {shape} (got {patterns!r})")
        for option in {"lr", "params", "groups", "_target_"} & group.keys():
            remedy = "set lr_factor, which the learning rate is multiplied by" if option == "lr" else "leave it out"
            raise ConfigError(f"{FIELD}.{name}.{option} is no option of a group; {remedy}")
    return {str(name): dict(group) for name, group in groups.items()}


def owners_of(patterns: Mapping[str, Sequence[str]], names: Sequence[str]) -> dict[str, str]:
    """The group of each parameter that is in one.

    Raises:
        ConfigError: a pattern that matches no parameter, or a parameter in two groups.

    >>> owners_of({"norms": ["norm.*"], "out": ["*.out"]}, ["norm.scale", "body", "head.out"])
    {'norm.scale': 'norms', 'head.out': 'out'}
    """
    owners: dict[str, str] = {}
    for group, own in patterns.items():
        for pattern in own:
            found = [name for name in names if fnmatchcase(name, pattern)]
            if not found:
                told = f"{', '.join(names[:8])}{', ...' if len(names) > 8 else ''}"
                raise ConfigError(f"{FIELD}.{group}.names: {pattern!r} matches none of the parameters {told}")
            for name in found:
                if owners.setdefault(name, group) != group:
                    raise ConfigError(f"{FIELD}: {name} is in {owners[name]} and in {group}; narrow the names of one")
    return owners


def _part(name: str | None, own: Mapping[str, Any], options: Group, members: Sequence[Any]) -> Any:
    """An optimizer of one group alone, whose groups say how its parameters are stepped."""
    field, factor = f"{FIELD}.{name}" if options else "server_optimizer", options.pop(FACTOR, 1.0)
    if isinstance(factor, bool) or not isinstance(factor, int | float) or not 0 <= factor <= MOST:
        raise ConfigError(f"{field}.{FACTOR} must be a number in [0, {MOST:g}] (got {factor!r})")
    try:
        part = build("server_optimizer", {**own, **options}, members)
    except ConfigError as error:
        raise ConfigError(f"{field}: {str(error).removeprefix('server_optimizer').lstrip(':. ')}") from error
    for option in options:
        if not any(option in group for group in part.param_groups):
            known = ", ".join(sorted({key for group in part.param_groups for key in group if key != "params"} - {"lr"}))
            raise ConfigError(f"{field}.{option} is the same for all parameters of this optimizer; groups have {known}")
    for group in part.param_groups:
        group[FACTOR] = float(factor)
    return part


def _given(named: Named, by_name: bool) -> list[Any]:
    return named if by_name else [p for _, p in named]
