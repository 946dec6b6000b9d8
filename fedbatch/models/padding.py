"""Whether what a model makes of a sequence depends on the padding behind it, found by leaving the padding out."""

from dataclasses import replace

import torch
from torch import Tensor

from fedbatch.core.layout import ATTENTION_MASK, Layout
from fedbatch.models.adapted import Call, call_of
from fedbatch.models.dropout import own_generators
from fedbatch.models.flat import FlatModel

TOLERANCE = 1e-4
"""Relative, between outputs with padding and without."""


def check_padding(model: FlatModel, x: Tensor, has_positions: bool) -> None:
    """Compare the shortest sequence of inputs ``x`` (N, width) with itself without its padding.

    Where a model takes one length only, its padding is filled with other numbers instead. A model that draws nothing
    is compared as it trains, too, for batch norm may take padding into its statistics.

    Args:
        model: tried before.
        x: inputs.
        has_positions: whether there is an output a position, of which those of padding do not matter.

    Raises:
        ValueError: the outputs differ.
    """
    call = call_of(model.module)
    if call is None or call.layout is None or not _has_mask(call.layout):
        return
    lengths, longest = _lengths(call.layout, x)
    row, length = x[lengths.argmin()].repeat(2, 1), int(lengths.min())  # twice, as batch norm refuses one alone
    for training in [False] if model.is_random else [False, True]:
        with torch.no_grad(), own_generators(True), model.unchanged():
            model.module.train(training)
            try:
                outputs = call(row.clone()), _without_padding(call, row, length)
            except Exception:  # one length only
                outputs = call(row.clone()), call(_refilled(call.layout, row, length))
        whole, other = (output[:, :length] if has_positions else output for output in outputs)
        change = float((other - whole).norm()) / max(float(whole.norm()), 1e-30)
        if not change <= TOLERANCE:
            raise ValueError(
                f"model: its output for a sequence of {length} changes by {100 * change:.3g} % without the padding to "
                f"{longest}; let its forward take attention_mask, and leave out what is 0 there"
            )


def _has_mask(layout: Layout) -> bool:
    """Whether sequences are padded, with a mask that says where."""
    return any(part.name == ATTENTION_MASK and part.is_padded for part in layout.parts)


def _lengths(layout: Layout, x: Tensor) -> tuple[Tensor, int]:
    """Of each row the place behind the last 1 of its mask, (N,); and that of the longest that may be."""
    place = [part.name for part in layout.parts].index(ATTENTION_MASK)
    mask = x.split(layout.sizes, dim=1)[place] != 0
    return (mask * torch.arange(1, mask.shape[1] + 1, device=x.device)).amax(dim=1), mask.shape[1]


def _without_padding(call: Call, row: Tensor, length: int) -> Tensor:
    """The output for one row, of which each padded part is cut to ``length``."""
    assert call.layout is not None
    pieces: list[Tensor] = []
    parts = []
    for part, values in zip(call.layout.parts, row.split(call.layout.sizes, dim=1), strict=True):
        kept = part.shape if not part.is_padded else (length, *part.shape[1:])
        parts.append(replace(part, shape=kept))
        pieces.append(values[:, : parts[-1].size])
    found: Tensor = replace(call, layout=Layout(tuple(parts)))(torch.cat(pieces, dim=1))
    return found


def _refilled(layout: Layout, row: Tensor, length: int) -> Tensor:
    """The row with the first element of each sequence in the place of its padding."""
    pieces = []
    for part, values in zip(layout.parts, row.clone().split(layout.sizes, dim=1), strict=True):
        if part.is_padded and part.name != ATTENTION_MASK:
            values[:, length:] = values[:, :1]
        pieces.append(values)
    return torch.cat(pieces, dim=1)
