"""Sequences of the plays, so few that one batch can be all of them; and lengths of a model's weights in training."""

import re
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import torch

from fedbatch.data import Dataset, shakespeare_roles
from fedbatch.models.flat import FlatModel
from fedbatch.models.transformer import Transformer
from fedbatch.server.checkpoint import load_latest
from fedbatch.trackers.following import Log, Row

NORMS = "norms.parquet"
GROUPS = {
    "stream": r"(tokens|positions)\.weight|.*\.(attention\.out|contract)\.(weight|bias)",
    "norms": r"(.*\.)?norm(_\d)?\.(weight|bias)",
    "rest": r".*",
}
"""Patterns of parameters; the first that matches counts. All that is added to the residual stream is ``stream``: every
layer norm divides by its length, so that the model stays the same if all of it is scaled together."""


@lru_cache(maxsize=2)
def sequences(units: int, test: int, context: int = 6) -> Dataset:
    """Sequences drawn once and for all from all roles, with one character of each masked.

    Args:
        units: of training.
        test: of the test split.
        context: characters of a sequence, at most 9.
    """
    whole = shakespeare_roles("masked", context, test_fraction=0.02, min_sequences=64)
    rng = np.random.default_rng(0)
    train, held_out = rng.permutation(len(whole.train_x))[:units], rng.permutation(len(whole.test_x))[:test]
    splits = (whole.train_x[train], whole.train_y[train], whole.test_x[held_out], whole.test_y[held_out])
    return Dataset("few_sequences", *splits, whole.num_classes)


def group(name: str) -> str:
    """Which of `GROUPS` a parameter is in.

    >>> [group(n) for n in ("tokens.weight", "blocks.0.norm_1.bias", "norm.weight", "blocks.0.attention.query.weight")]
    ['stream', 'norms', 'norms', 'rest']
    """
    return next(found for found, pattern in GROUPS.items() if re.fullmatch(pattern, name))


def lengths(params: torch.Tensor, model: FlatModel) -> dict[str, float]:
    """Euclidean length of the parameters (d,) in each of `GROUPS`."""
    squares = dict.fromkeys(GROUPS, 0.0)
    sizes = [p.numel() for p in model.trainable]
    for name, part in zip(model.names, params.double().split(sizes), strict=True):
        squares[group(name)] += float(part.square().sum())
    return {name: square**0.5 for name, square in squares.items()}


class Norms:
    """A tracker that writes `lengths` at every checkpoint of a `Transformer` to norms.parquet, a row each."""

    @contextmanager
    def following(self, folder: Path, config: Mapping[str, Any], from_round: int) -> Iterator[Log]:
        """Read the checkpoint that the row before a multiple of ``checkpoint_every_rounds`` left, and the last one."""
        data, of = config["dataset"], config["model"]
        classes = sequences(data["units"], data["test"], data["context"]).num_classes or 0
        model = FlatModel(
            Transformer((data["context"],), classes, of["layers"], of["heads"], of["width"], False, False)
        )
        found: dict[int, dict[str, float]] = {}

        def look(row: Row) -> None:
            if row["round"] % config["checkpoint_every_rounds"] == 0:
                read()

        def read() -> None:
            state = load_latest(folder / "checkpoints")
            found[state.round] = lengths(state.params, model)

        yield look
        read()
        pl.DataFrame([{"round": at, **values} for at, values in sorted(found.items())]).write_parquet(folder / NORMS)
