"""The tables at the end of a run: its rounds by phase, and how calibrated its predictions are."""

from collections.abc import Iterable, Mapping
from itertools import chain, groupby
from typing import Any

from rich.table import Table

from fedbatch.core.find_columns import seen_as
from fedbatch.core.scores import in_words, number
from fedbatch.core.visible import visible

Row = dict[str, Any]


def phase_table(rows: Iterable[Row], score: str = "test_accuracy") -> Table:
    """Rounds, global batch, examples, the column ``score``, loss and noise scale at the end of each stretch."""
    rows = iter(rows)
    first = next(rows, {})
    table = Table()
    private, queried = "epsilon_rdp" in first, "labels_used" in first
    spent = "epsilon" if "epsilon" in first else "epsilon_rdp"  # runs of an earlier fedbatch have only the latter
    names = ("phase", "rounds", "batch", "examples", in_words(score), "loss", "noise scale")
    for name in (*names, *(["labels"] if queried else []), *([spent] if private else [])):
        table.add_column(name, justify="left" if name == "phase" else "right")
    # Between queries the cohort varies by the clients that have a label yet; elsewhere its size is the controller's.
    part = "labels_used" if queried else "cohort_size"
    for _, stretch in groupby(chain([first] if first else [], rows), key=lambda row: (row["phase"], row[part])):
        begin = last = next(stretch)
        tested = None
        for last in chain([begin], stretch):
            tested = last if last["test_loss"] == last["test_loss"] else tested
        tested = tested or last
        table.add_row(
            visible(last["phase"]),
            f"{begin['rounds']}-{last['rounds']}",
            f"{last['global_batch']:,}",
            f"{last['examples']:,}",
            number(tested[score]),
            number(tested["test_loss"]),
            f"{last[seen_as('noise_scale', last)]:.4g} {visible(last['noise_scale_unit'])}",
            *([f"{last['labels_used']:,}"] if queried else []),
            *([f"{tested[spent]:.3g}"] if private else []),
        )
    return table


POOLS = {"test": "test split", "held_out": "held out"}


def calibration_table(calibration: Mapping[str, Any]) -> Table:
    """Scores of the test split and of what clients hold out, before and after the temperature."""
    caption = "ECE: equal width, l1; bound: mean of clients'; ECE l2: equal mass, debiased"
    table = Table(caption=caption, caption_justify="left")
    for name in ("", "T", "accuracy", "ECE", "bound", "ECE l2", "NLL"):
        table.add_column(name, justify="right" if name else "left", no_wrap=True)
    after = "own" if "clients" in calibration else f"{calibration.get('temperature', 1.0):.3f}"
    for stage, temperature in (("before", "1"), ("after", after)):
        for pool, scores in calibration.get(stage, {}).items():
            table.add_row(
                POOLS[pool],
                temperature,
                f"{scores['accuracy']:.3f}",
                f"{scores['ece']:.4f} +- {scores['ece_se']:.4f}",
                f"{scores['mean_ece']:.4f}" if pool == "held_out" else "",
                f"{scores['ece_mass']:.4f}",
                f"{scores['nll']:.4f}",
            )
    return table
