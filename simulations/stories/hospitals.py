"""Hospitals with tables of patients train together: what does it cost to protect each patient?

    python -m simulations.stories.hospitals

Makes a CSV file with a column that says whose patient a row is, plans the noise, trains with and without privacy, and
draws both. The data are scikit-learn's tumours, dealt to eight hospitals of different size.
"""

import argparse
from pathlib import Path

import matplotlib

matplotlib.use("Agg")
import numpy as np
import polars as pl
from matplotlib import pyplot as plt
from sklearn.datasets import load_breast_cancer

import fedbatch

HOSPITALS, EPSILON = 8, 4.0


def main() -> None:
    """Write the table, plan, train, draw."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--runs", type=Path, default=Path("runs/hospitals"))
    parser.add_argument("--quick", action="store_true", help="few rounds, to see that it works")
    given = parser.parse_args()
    table = write_table(given.runs / "patients.csv")
    task = (
        *("dataset=hugging_face", f"dataset.source={table}", "dataset.label_column=benign"),
        f"dataset.input_column=[{','.join(f'm{i}' for i in range(30))}]",
        *("dataset.owner_column=hospital", "partitioner=natural", f"population={HOSPITALS}", "model=logistic"),
        *("evaluate_every_rounds=5", "report=none", "overwrite=true"),
    )
    rounds = 20 if given.quick else 150
    private = (*task, "privacy=example_central", f"privacy.target_epsilon={EPSILON}", f"rounds={rounds}")
    choice = fedbatch.plan(*private).choice
    print(f"plan: noise multiplier {choice.noise_multiplier:.2f} at a batch of {choice.batch:.0f} patients")
    plain = (*task, "controller=fixed", f"cohort_size={HOSPITALS}", "client_batch_size=16", f"rounds={rounds}")
    runs = {
        f"epsilon {EPSILON:g} for each patient": fedbatch.run(*private, f"run_dir={given.runs / 'private'}"),
        "without privacy": fedbatch.run(*plain, f"run_dir={given.runs / 'plain'}"),
    }
    for name, run in runs.items():
        print(f"{name}: test accuracy {run.summary['test_accuracy']:.3f}")
    print(f"picture: {draw(given.runs, {name: run.folder for name, run in runs.items()})}")


def write_table(path: Path) -> Path:
    """569 patients with 30 measurements, a label, and a hospital; the largest hospital has eight times the smallest."""
    x, benign = load_breast_cancer(return_X_y=True)
    shares = np.arange(1, HOSPITALS + 1) / np.arange(1, HOSPITALS + 1).sum()
    hospital = np.random.default_rng(0).choice(HOSPITALS, len(x), p=shares)
    rows = pl.DataFrame(x, schema=[f"m{i}" for i in range(x.shape[1])])
    path.parent.mkdir(parents=True, exist_ok=True)
    rows.with_columns(benign=pl.Series(benign), hospital=pl.Series([f"h{i}" for i in hospital])).write_csv(path)
    return path


def draw(folder: Path, runs: dict[str, Path]) -> Path:
    """Accuracy over rounds of each run."""
    figure, axes = plt.subplots(figsize=(6, 4), layout="constrained")
    for color, (name, run) in zip(("#D55E00", "#0072B2"), runs.items(), strict=True):
        rows = fedbatch.load_rounds(run).drop_nans("test_accuracy")
        axes.plot(rows["rounds"], 100 * rows["test_accuracy"], "o-", ms=3, color=color, label=name)
    axes.set(xlabel="rounds", ylabel="test accuracy, %")
    axes.legend(frameon=False, loc="lower right")
    axes.grid(alpha=0.3)
    path = folder / "hospitals.png"
    figure.savefig(path, dpi=130)
    return path


if __name__ == "__main__":
    main()
