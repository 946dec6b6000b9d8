"""A module called with what it asks for, and asked for what it gives: arrays by name, and one tensor of what returns.

The rest of fedbatch calls ``module(x)`` with one tensor, an example a row, and takes one tensor. Where a model has
several inputs, or returns more than its outputs, its own ``forward`` is wrapped on the instance, so that names of
parameters, hooks and layers stay as they are.
"""

import inspect
from collections.abc import Callable, Mapping
from dataclasses import dataclass, fields, is_dataclass
from typing import Any

from torch import Tensor, nn

from fedbatch.core.layout import Layout

Output = str | int
"""A key or an attribute of what a model returns, or a place in it."""


@dataclass
class Call:
    """What stands in the place of a module's forward.

    Attributes:
        forward: the module's own.
        layout: what lies where in a row; None where an input is one tensor.
        output: which part of what it returns to take; None for all.
    """

    forward: Callable[..., Any]
    layout: Layout | None
    output: Output | None

    def __post_init__(self) -> None:
        optional = [part.name for part in self.layout.parts if part.is_optional] if self.layout else []
        self.left_out = {name for name in optional if not asks_for(self.forward, str(name))}

    def __call__(self, x: Tensor) -> Any:
        """The output for inputs ``x`` (n, width) that hold the parts of ``layout``, or (n, ...) without one."""
        positional, named = arguments(self, x)
        return picked(self.forward(*positional, **named), self.output)


def named_output(module: nn.Module, output: Output) -> nn.Module:
    """The module itself, whose outputs are from now on one part of what it returns; for models given as objects.

    Args:
        module: returns a mapping, a dataclass or a tuple.
        output: a key, an attribute or a place in it.
    """
    return adapted(module, None, output)


def adapted(module: nn.Module, layout: Layout | None, output: Output | None) -> nn.Module:
    """The module itself, which from now on takes rows and gives one part of its output; see `restored`.

    A part that was named before stays so unless another one is.
    """
    before = call_of(module)
    output = before.output if before is not None and output is None else output
    restored(module)
    if layout is not None or output is not None:
        module.forward = Call(module.forward, layout, output)
    return module


def restored(module: nn.Module) -> nn.Module:
    """The module as it was before `adapted`."""
    if isinstance(call := call_of(module), Call):
        del module.forward
        if call.forward != module.forward:  # it was on the instance before
            module.forward = call.forward
    return module


def call_of(module: nn.Module) -> Call | None:
    """What `adapted` has put in the place of the module's forward, if it has."""
    found = vars(module).get("forward")
    return found if isinstance(found, Call) else None


def arguments(call: Call, x: Tensor) -> tuple[list[Tensor], dict[str, Tensor]]:
    """Positional and named arguments for rows ``x`` (n, width)."""
    if call.layout is None:
        return [x], {}
    positional: list[Tensor] = []
    named: dict[str, Tensor] = {}
    for part, values in zip(call.layout.parts, x.split(call.layout.sizes, dim=1), strict=True):
        if part.name in call.left_out:
            continue
        values = values.unflatten(1, part.shape) if part.shape else values.squeeze(1)
        if part.kind != "float":
            values = values != 0 if part.kind == "bool" else values.long()
        if isinstance(part.name, str):
            named[part.name] = values.contiguous()
        else:
            positional.append(values.contiguous())
    return positional, named


def asks_for(forward: Callable[..., Any], name: str) -> bool:
    """Whether a function has an argument of this name, or takes any."""
    given = inspect.signature(forward).parameters
    return name in given or any(each.kind is inspect.Parameter.VAR_KEYWORD for each in given.values())


def picked(found: Any, output: Output | None) -> Any:
    """The part of what a model returned.

    Raises:
        ValueError: it has no such part; names those there are.
    """
    if output is None:
        return found
    part, names = output, parts_of(found)
    if isinstance(part, int) and -len(names) <= part < len(names):
        part = names[part]
    if isinstance(part, int):
        if part in names:
            return found[part]
    elif isinstance(found, Mapping) and part in found:
        return found[part]
    elif not isinstance(found, Tensor) and hasattr(found, part):
        return getattr(found, part)
    raise ValueError(f"output={output!r} is not in the {in_words(found)} that it returns")


def in_words(found: Any) -> str:
    """What a model returned, with the names or places of its parts.

    >>> in_words({"logits": 1, "hidden": 2}), in_words((1, 2))
    ('dict of logits, hidden', 'tuple of 0, 1')
    """
    return (
        f"{type(found).__name__} of {', '.join(map(str, names))}"
        if (names := parts_of(found))
        else (type(found).__name__)
    )


def parts_of(found: Any) -> list[Output]:
    """Names of the parts of what a model returned, or their places; empty where it has none."""
    if isinstance(found, Mapping):
        return [str(name) for name in found]
    if is_dataclass(found):
        return [field.name for field in fields(found)]
    if hasattr(found, "_fields"):
        return list(found._fields)
    return [*range(len(found))] if isinstance(found, tuple | list) else []


def inputs_in_words(module: nn.Module, x: Tensor) -> str:
    """What the module's own forward is given of inputs ``x`` (n, ...)."""
    call = call_of(module)
    return f"shape {tuple(x.shape[1:])}" if call is None or call.layout is None else call.layout.in_words
