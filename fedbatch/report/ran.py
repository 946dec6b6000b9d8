"""What ran, in words: data, clients, model, rounds, optimizer, privacy, machine; for the head of a page."""

from collections.abc import Iterator, Mapping
from typing import Any

Values = Mapping[str, Any]

MOST = 4
"""Settings of a part that are named."""
UNNAMED = ("_target_", "kind", "num_partitions", "seed")
OTHERS = (
    *("task", "aggregator", "compression", "sampler", "availability", "asynchronous", "augment", "averaging"),
    *("metrics", "temperature", "active", "faults"),
)
"""Groups that are nothing by default."""


def what_ran(config: Values, summary: Values) -> dict[str, str]:
    """What ran, by label. A config of an earlier fedbatch may lack a part; then so does the answer.

    Args:
        config: as ``config.yaml`` has it.
        summary: as ``summary.json`` has it.
    """
    machine = summary.get("machine") or {}
    kinds = (machine.get("device"), f"{machine['cpus']} processors" if "cpus" in machine else "", machine.get("system"))
    seconds = summary.get("measured_seconds")
    found = {
        "data": part(config.get("dataset")),
        "clients": ", ".join(filter(None, [_number(config.get("population")), part(config.get("partitioner"))])),
        "model": ", ".join(filter(None, [part(config.get("model")), _count(summary.get("parameters"), "parameters")])),
        "a round": "; ".join(phases(config)),
        "client work": ", ".join(filter(None, [part(config.get("client_work")), part(config.get("loss"))])),
        "server optimizer": part(config.get("server_optimizer")),
        "controller": part(config.get("controller")),
        "privacy": part(config.get("privacy")) or "none",
        "besides": "; ".join(part(config.get(group)) for group in OTHERS if config.get(group)),
        "seed": _number(config.get("seed")),
        "machine": ", ".join(str(kind) for kind in kinds if kind),
        "training": f"{float(f'{seconds:.2g}'):,g} s, without evaluation" if isinstance(seconds, int | float) else "",
    }
    return {label: text for label, text in found.items() if text}


def part(values: Any) -> str:
    """A part of a config: its class, and the first few settings that are not nothing.

    >>> part({"_target_": "torch.optim.SGD", "lr": 0.1, "momentum": 0.0, "groups": None})
    'SGD, lr 0.1'
    """
    if not isinstance(values, Mapping) or "_target_" not in values:
        return ""
    name = str(values.get("kind") or values["_target_"]).rsplit(".", 1)[-1]
    plain = {key: value for key, value in values.items() if isinstance(value, int | float | str) and value}
    named = [f"{key.replace('_', ' ')} {_number(value)}" for key, value in plain.items() if key not in UNNAMED]
    return ", ".join([name, *named[:MOST]])


def phases(config: Values) -> Iterator[str]:
    """Clients and examples of a round of each phase that the controller names."""
    controller = config.get("controller") or {}
    found = [each for value in controller.values() for each in _phases(value)]
    for phase in found:
        size = phase.get("client_batch_size")
        examples = "all their examples" if size is None else f"{_number(size)} examples each"
        name = f"{phase.get('name')}: " if len(found) > 1 else ""
        yield f"{name}{_number(phase.get('cohort_size'))} clients, {examples}"


def _phases(value: Any) -> Iterator[Values]:
    if isinstance(value, Mapping):
        if "cohort_size" in value:
            yield value
        else:
            yield from (each for inner in value.values() for each in _phases(inner))


def _count(value: Any, what: str) -> str:
    return f"{value:,} {what}" if isinstance(value, int) else ""


def _number(value: Any) -> str:
    """A number as people write it.

    >>> _number(1000), _number(0.1), _number(True), _number(None)
    ('1,000', '0.1', 'True', '')
    """
    if value is None:
        return ""
    if isinstance(value, bool) or not isinstance(value, int | float):
        return str(value)
    return f"{value:,}" if isinstance(value, int) else f"{value:g}"
