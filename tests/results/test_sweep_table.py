"""The table at the end of a sweep against statistics of the scores that runs wrote."""

import io
import json
from statistics import mean, stdev

from rich.console import Console

from fedbatch.results.choices import write_choices
from fedbatch.results.sweep_table import sweep_table, unfinished_lines


def made(folder, own, **summary):
    write_choices(folder, own)
    (folder / "summary.json").write_text(json.dumps({"status": "finished", **summary}))


def shown(folder):
    console = Console(file=io.StringIO(), width=120)
    console.print(sweep_table(folder))
    return [
        [cell.strip() for cell in line.strip("│").split("│")]
        for line in console.file.getvalue().split("\n")
        if "│" in line
    ]


def test_the_table_has_a_line_for_each_choice_but_the_seed(tmp_path):
    scores = {"fixed": [0.5, 0.7, 0.6], "goodput": [0.8, 0.82]}
    number = 0
    for name, values in scores.items():
        for seed, value in enumerate(values):
            made(tmp_path / str(number), {"controller": name, "seed": str(seed)}, test_accuracy=value)
            number += 1
    made(tmp_path / "7", {"controller": "goodput", "seed": "2"}, status="failed", error="diverged [red]x")
    assert shown(tmp_path) == [
        ["fixed", "3", f"{mean(scores['fixed']):.3f}", f"{stdev(scores['fixed']):.3f}", "", ""],
        ["goodput", "3", f"{mean(scores['goodput']):.3f}", f"{stdev(scores['goodput']):.3f}", "best mean", "1"],
    ]
    (line,) = unfinished_lines(tmp_path)
    assert line == f"{tmp_path / '7'} (controller=goodput seed=2): diverged [red]x"


def test_where_lower_is_better_the_lower_mean_is_best_and_scores_of_two_kinds_have_none(tmp_path):
    for name, value in (("a", 3.0), ("b", 2.0)):
        summary = {"score": "test_mse", "score_better": "lower", "test_mse": value}
        made(tmp_path / name, {"model": name}, **summary)
    assert [line[-2] for line in shown(tmp_path)] == ["", "best mean"]
    made(tmp_path / "c", {"model": "c"}, test_accuracy=0.5)
    assert [line[-2] for line in shown(tmp_path)] == ["", "", ""]


def test_a_single_run_has_no_table(tmp_path):
    made(tmp_path / "0", {"seed": "0"}, test_accuracy=0.5)
    assert sweep_table(tmp_path) is None
