"""How many clients do I need? One run with ten clients a round says it, and three more runs check what it said.

python -m simulations.stories.clients_needed
"""

import argparse
from pathlib import Path

import matplotlib

matplotlib.use("Agg")
from matplotlib import pyplot as plt

import fedbatch

TRIED = (10, 40, 160, 640)
GOAL = 0.6
"""A training loss."""
RATE, MOST_GROWTH = 0.1, 4.0
TASK = (
    *("dataset=fashion_mini", "population=1000", "client_batch_size=4", "controller=fixed", "report=none"),
    *("training_set_examples=2000", "evaluate_every_rounds=2"),
)


def main() -> None:
    """Run, ask, check, and draw."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--runs", type=Path, default=Path("runs/clients_needed"))
    parser.add_argument("--quick", action="store_true", help="fewer rounds, to see that it works")
    given = parser.parse_args()
    rounds, goal = (100, 1.2) if given.quick else (300, GOAL)
    runs = {clients: trained(given.runs / str(clients), clients, rounds) for clients in TRIED}
    found = fedbatch.critical(runs[TRIED[0]], losses=[goal])
    said = {clients: found.predict(cohort=clients).rounds for clients in TRIED}
    # What a run says of its own batch is what it took, with its loss smoothed as that of the first one is.
    needed = {n: fedbatch.critical(run, losses=[goal]).predict(cohort=n).rounds for n, run in runs.items()}
    for clients in TRIED:
        print(
            f"{clients:>4} clients a round: {said[clients]:>4.0f} rounds told by one run, {needed[clients]:>4.0f} taken"
        )
    print(f"critical cohort: {found.goals[0].b_crit / 4:.0f} clients; picture: {draw(given.runs, said, needed)}")


def trained(folder: Path, clients: int, rounds: int) -> Path:
    """A run with so many clients a round, at a rate that grows with their root; its folder."""
    rate = RATE * min(MOST_GROWTH, (clients / TRIED[0]) ** 0.5)
    size = (f"cohort_size={clients}", f"rounds={rounds}", f"server_optimizer.lr={rate:g}", f"run_dir={folder}")
    return fedbatch.run(*TASK, *size, "overwrite=true").folder


def draw(folder: Path, said: dict[int, float], needed: dict[int, float]) -> Path:
    """Rounds over clients, told and taken."""
    figure, axes = plt.subplots(figsize=(6, 4), layout="constrained")
    axes.loglog(list(said), list(said.values()), "-", color="#0072B2", label="told by one run with 10 clients")
    axes.loglog(list(needed), list(needed.values()), "o", color="#D55E00", label="taken")
    axes.set_xticks(TRIED, [str(clients) for clients in TRIED])
    for formatter in (axes.yaxis.set_major_formatter, axes.yaxis.set_minor_formatter):
        formatter("{x:.0f}")
    axes.set(xlabel="clients a round", ylabel="rounds to the goal")
    axes.legend(frameon=False)
    axes.grid(alpha=0.3)
    path = folder / "clients_needed.png"
    figure.savefig(path, dpi=130)
    return path


if __name__ == "__main__":
    main()
