"""A model is tried on a few real examples before the run: what it does is found by calling it, not by its type."""

import copy
import random
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor, nn

from fedbatch.models.adapted import in_words, inputs_in_words, parts_of
from fedbatch.models.dropout import generator_states, keyed_dropout, own_generators
from fedbatch.models.flat import FlatModel, Loss

TOLERANCE = 1e-4  # relative, between an example's output in a batch and alone
REPEATED = (
    1e-6  # relative, between the losses of two calls with the same buffers and draws; kernels may add in any order
)
KEY = torch.zeros((), dtype=torch.int64)
TOGETHER = 8  # examples of a batch in which they are looked for to meet


@dataclass(frozen=True)
class Wanted:
    """What the outputs of a model must be.

    Attributes:
        shape: of the outputs for labels of a shape.
        class_axis: axis with a number for each class, which may have more than there are; None for numbers.
    """

    shape: Callable[[tuple[int, ...]], tuple[int, ...]]
    class_axis: int | None = -1

    @property
    def name(self) -> str:
        """What outputs are called."""
        return "numbers" if self.class_axis is None else "logits"

    @property
    def axis_in_words(self) -> str:
        """Where classes lie, to append to a shape."""
        if self.class_axis is None:
            return ""
        which = "the last axis" if self.class_axis == -1 else f"axis {self.class_axis}"
        return f", one for each class along {which}"

    def fits(self, found: tuple[int, ...], expected: tuple[int, ...]) -> bool:
        """Whether outputs have the shape that is expected, or more classes."""
        if self.class_axis is None or len(found) != len(expected):
            return found == expected
        few = list(found)
        few[self.class_axis] = min(found[self.class_axis], expected[self.class_axis])
        return tuple(few) == expected


def try_out(model: FlatModel, loss: Loss, x: Tensor, y: Tensor, wanted: Wanted, sizes: list[int]) -> None:
    """Call ``model`` and ``loss`` on batches of ``sizes``, and set what was found on the model.

    Sets ``changing`` buffers, ``is_random``, ``writes_inputs`` and ``examples_meet``. All else stays as it was.

    Args:
        model: fresh, with no changing buffers.
        loss: of the run.
        x: inputs (n, ...), at least ``max(sizes)``.
        y: labels (n, ...).
        wanted: what outputs must be.
        sizes: batch sizes that occur in the run, the smallest among them.

    Raises:
        ValueError: one line on what cannot work.
    """
    frozen = {name: p.detach().clone() for name, p in model.module.named_parameters() if not p.requires_grad}
    places = {name: (p, p.data_ptr()) for name, p in model.module.named_parameters()}
    with torch.enable_grad(), own_generators(True), model.unchanged(), _buffers_restored(model.module) as buffers:
        model.module.train()
        before = generator_states()
        for size in sizes:
            given = x[:size].clone()
            _check_batch(model, loss, given, y[:size].clone(), wanted)
            model.writes_inputs |= not _equal(given, x[:size])
        _check_evaluation(model, x, y, wanted)
        is_random = generator_states() != before
        found, parameters = dict(model.module.named_buffers()), dict(model.module.named_parameters())
        changing = [name for name, b in buffers.items() if name not in found or not _equal(found[name], b)]
        for name, (p, place) in places.items():
            if parameters[name] is not p or p.data_ptr() != place:
                raise ValueError(
                    f"model: its forward puts another tensor in place of {name}; change it in place instead"
                )
        for name, values in frozen.items():
            if not torch.equal(parameters[name], values):
                raise ValueError(
                    f"model: its forward changes the frozen parameter {name}, which would not be in a checkpoint; "
                    "make it a buffer with register_buffer"
                )
        for name in changing:
            if not buffers[name].isfinite().all():
                raise ValueError(f"model: buffer {name} changes in training but starts from values that are not finite")
            values = found.get(name, buffers[name])
            exact = 2 / torch.finfo(model.params.dtype).eps  # whole numbers below are
            if not values.is_floating_point() and bool((values.double().abs() >= exact).any()):
                raise ValueError(
                    f"model: buffer {name} holds whole numbers that {model.params.dtype} cannot, as which it travels; "
                    "count from a smaller number"
                )
        _check_repeatable(model, loss, x[: sizes[-1]], y[: sizes[-1]])
        examples_meet = _examples_meet(model, x[:TOGETHER])
    model.set_changing(changing)
    model.is_random, model.examples_meet = is_random, examples_meet


def _check_batch(model: FlatModel, loss: Loss, x: Tensor, y: Tensor, wanted: Wanted) -> None:
    """A forward, a loss and a backward.

    Raises:
        ValueError: what does not work, and the remedy.
    """
    size = len(y)
    batch = f"a batch of {size} example{'s' * (size > 1)} of {inputs_in_words(model.module, x)}"
    with _refusing(f"model: cannot be called on {batch}", _remedy(model, x)):
        output = model.module(x)
    _check_output(output, y, wanted, batch)
    with _refusing(f"loss: cannot be computed from {wanted.name} {tuple(output.shape)} and labels {tuple(y.shape)}"):
        value = loss(output, y)
        if not (isinstance(value, Tensor) and value.dim() == 0):
            raise TypeError(f"its value must be one number (got shape {tuple(getattr(value, 'shape', ()))})")
        if getattr(loss, "per_example", False):
            _check_single_losses(loss, output.detach(), y)
    with _refusing(f"model: its backward fails on {batch}"):
        if not value.requires_grad:
            raise RuntimeError("the loss depends on no parameter: detach() or no_grad() is in the way")
        model.grads.zero_()
        gradients = torch.autograd.grad(value, model.trainable, allow_unused=True)
        if all(g is None for g in gradients):
            raise RuntimeError("the loss depends on no parameter that is trained")


def _check_evaluation(model: FlatModel, x: Tensor, y: Tensor, wanted: Wanted) -> None:
    """A forward as in evaluation, which some models answer in another form."""
    batch = f"a batch of {len(y)} example{'s' * (len(y) > 1)} in evaluation"
    model.module.eval()
    with _refusing(f"model: cannot be called on {batch}"), torch.no_grad():
        output = model.module(x.clone())
    model.module.train()
    _check_output(output, y, wanted, batch)


def _check_output(output: Tensor, y: Tensor, wanted: Wanted, batch: str) -> None:
    expected = wanted.shape(tuple(y.shape))
    if not isinstance(output, Tensor):
        told = (
            f"model: its output is a {in_words(output)}; it must be one tensor of {wanted.name} of shape {expected} for"
        )
        remedy = f"; name the {wanted.name} among these in its YAML, as output: logits" if parts_of(output) else ""
        raise ValueError(f"{told} {batch}{remedy}")
    if not (output.is_floating_point() and wanted.fits(tuple(output.shape), expected)):
        raise ValueError(
            f"model: its output for {batch} has shape {tuple(output.shape)} and type {output.dtype}; it must hold "
            f"{wanted.name} of shape {expected}{wanted.axis_in_words}"
        )


def _check_single_losses(loss: Loss, output: Tensor, y: Tensor) -> None:
    single = loss(output, y, reduction="none")
    if single.shape != y.shape[:1]:
        raise TypeError(
            f"reduction='none' must give one value for each of {len(y)} examples (got shape {tuple(single.shape)}); "
            "or set per_example = False"
        )
    mean, whole = single.double().mean(), loss(output, y).double()
    if whole.isfinite() and not torch.isclose(mean, whole, rtol=1e-4, atol=1e-6):
        raise TypeError(
            f"the mean over reduction='none' is {float(mean):.6g} but the loss of the batch {float(whole):.6g}; set "
            "per_example = False, or let the loss be the mean of its examples' own"
        )


@contextmanager
def _refusing(what: str, remedy: Callable[[], str] = lambda: "") -> Iterator[None]:
    """Whatever a user's model or loss raises is about it, and told in one line."""
    try:
        yield
    except Exception as error:
        text = " ".join(str(error).split()) or type(error).__name__
        raise ValueError(f"{what}: {text}{remedy()}") from error


def _remedy(model: FlatModel, x: Tensor) -> Callable[[], str]:
    def works(call: Callable[[], object]) -> bool:
        try:
            call()
        except Exception:
            return False
        return True

    def text() -> str:
        if len(x) == 1 and works(lambda: model.module(torch.cat([x, x]))):
            return (
                "; batch norm needs two examples, and some batches of this run have one: use a layer without batch "
                "statistics (model.norm=group), or another client_batch_size"
            )
        if model.channels_last and works(lambda: _plain(model.module)(x)):
            return "; it needs channels_last=false"
        return ""

    return text


def _plain(module: nn.Module) -> nn.Module:
    """A copy of the module with parameters in torch's own layout."""
    copied = copy.deepcopy(module)
    for p in copied.parameters():
        p.data = p.data.contiguous()
    return copied


def _check_repeatable(model: FlatModel, loss: Loss, x: Tensor, y: Tensor) -> None:
    """Two calls from one state must agree, else there is state that no checkpoint has.

    Raises:
        ValueError: they do not.
    """
    losses = []
    for _ in range(2):
        random.seed(0)
        np.random.seed(0)
        with torch.no_grad(), model.unchanged(), _buffers_restored(model.module), keyed_dropout(KEY, len(y)):
            losses.append(float(loss(model.module(x.clone()), y.clone())))
    first, again = losses
    if abs(first - again) > REPEATED * abs(first):
        raise ValueError(
            f"model: two calls on the same examples give the losses {first:.6g} and {again:.6g}, so it or the loss "
            "keeps values that no checkpoint has, or draws from a generator of its own; keep tensors with "
            "register_buffer, and draw with torch's functions"
        )


def _examples_meet(model: FlatModel, x: Tensor) -> bool:
    """Whether an example's training output changes with its company; what cannot be called alone does.

    The first is called alone. The last, as a recurrent layer over the batch shows it those before it, is given others.
    """
    others = torch.cat([x[-1:].expand_as(x[:-1]), x[-1:]])
    try:
        with torch.no_grad():
            outputs = []
            for inputs in (x, x[:1], others):
                with keyed_dropout(KEY, len(inputs)):
                    outputs.append(model.module(inputs.clone()).double())
    except Exception:
        return True
    together, alone, among_others = outputs
    pairs = (together[0], alone[0]), (together[-1], among_others[-1])
    return not all((a - b).norm() <= TOLERANCE * b.norm() for a, b in pairs)


@contextmanager
def _buffers_restored(module: nn.Module) -> Iterator[dict[str, Tensor]]:
    """Yields the buffers' values by name, and puts the same tensors with the same values back afterwards."""
    named = [
        (path, m, name, b) for path, m in module.named_modules() for name, b in m._buffers.items() if b is not None
    ]
    values = {f"{path}.{name}".removeprefix("."): b.clone() for path, _, name, b in named}
    try:
        yield values
    finally:
        with torch.no_grad():
            for path, m, name, b in named:
                m._buffers[name] = b.copy_(values[f"{path}.{name}".removeprefix(".")])


def _equal(first: Tensor, second: Tensor) -> bool:
    same = first == second
    return bool((same | (first != first) & (second != second)).all())  # not-a-number is as it was
