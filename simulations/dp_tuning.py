"""Is the rate that is best at a small batch with equal total noise the best at the large, private one?

    python -m simulations.dp_tuning                 two epsilons, two seeds, about ten minutes on one core
    python -m simulations.dp_tuning --quick         one epsilon, one seed, three rates

Sander et al. (2023) tune hyperparameters at a batch B0 with the noise of the mean sigma / B of the private run at B,
which costs B0 / B of the work and gives no guarantee by itself. Writes docs/results/dp_tuning.parquet and .md.
"""

import argparse
import tempfile
from pathlib import Path

import polars as pl

import fedbatch

ROOT = Path(__file__).parents[1]
CLIENTS, LARGE, SMALL, ROUNDS = 100, 32, 4, 100
"""Examples of a client and round: 3,200 in all at the large batch, 400 at the small."""
RATES = (0.5, 1.0, 2.0, 4.0, 8.0, 16.0)
COMMON = (
    *("privacy=example_distributed", f"privacy.min_clients={CLIENTS}", f"population={CLIENTS}", "model.width=32"),
    *(f"cohort_size={CLIENTS}", f"rounds={ROUNDS}", "evaluate_every_rounds=0", "checkpoint_every_rounds=0"),
    *("report=none", "executor=fused"),
)


def main() -> None:
    """Run the grid, write it and the table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--quick", action="store_true", help="a few runs, results in a temporary folder")
    quick = parser.parse_args().quick
    epsilons, seeds, rates = ([2.0], [0], RATES[1:4]) if quick else ([2.0, 8.0], [0, 1], RATES)
    with tempfile.TemporaryDirectory() as scratch:
        rows = [
            run_once(Path(scratch), epsilon, sigma * batch / LARGE, batch, rate, seed)
            for epsilon, sigma in noises(epsilons).items()
            for batch in (SMALL, LARGE)
            for rate in rates
            for seed in seeds
        ]
        table, out = pl.DataFrame(rows), Path(scratch) if quick else ROOT / "docs/results"
        table.write_parquet(out / "dp_tuning.parquet")
        (out / "dp_tuning.md").write_text(markdown(table))
        print(markdown(table))


def noises(epsilons: list[float]) -> dict[float, float]:
    """The noise multiplier of the private run at the large batch, for each epsilon."""
    large = (*COMMON, f"client_batch_size={LARGE}")
    plans = {epsilon: fedbatch.plan(*large, f"privacy.target_epsilon={epsilon}") for epsilon in epsilons}
    return {epsilon: plan.configured.noise_multiplier for epsilon, plan in plans.items()}


def run_once(scratch: Path, epsilon: float, sigma: float, batch: int, rate: float, seed: int) -> dict[str, object]:
    """One run: the private one at the large batch, or its like at the small, with the same noise of the mean."""
    result = fedbatch.run(
        *COMMON,
        *(f"client_batch_size={batch}", f"privacy.noise_multiplier={sigma}", "privacy.target_epsilon=null"),
        *(f"server_optimizer.lr={rate}", f"seed={seed}", f"run_dir={scratch / f'{epsilon}-{batch}-{rate}-{seed}'}"),
    )
    scores = {name: result.summary[name] for name in ("test_accuracy", "test_loss", "epsilon", "examples")}
    return {"target": epsilon, "batch": batch * CLIENTS, "sigma": sigma, "lr": rate, "seed": seed, **scores}


def markdown(table: pl.DataFrame) -> str:
    """Accuracy by rate, the mean over seeds; the best of each line in bold."""
    rates = sorted({row["lr"] for row in table.to_dicts()})
    lines = [
        f"| epsilon | batch | sigma | {' | '.join(f'rate {rate:g}' for rate in rates)} |",
        f"|---|---|---|{'---|' * len(rates)}",
    ]
    means = table.group_by("target", "batch", "sigma", "lr", maintain_order=True).agg(pl.col("test_accuracy").mean())
    for line in means.select("target", "batch", "sigma").unique(maintain_order=True).to_dicts():
        here = means.filter(pl.col("target") == line["target"], pl.col("batch") == line["batch"]).sort("lr")
        accuracies = here["test_accuracy"].to_list()
        cells = [f"**{100 * each:.1f}**" if each == max(accuracies) else f"{100 * each:.1f}" for each in accuracies]
        lines.append(f"| {line['target']:g} | {line['batch']:,} | {line['sigma']:.3g} | {' | '.join(cells)} |")
    return "\n".join(lines) + "\n"


if __name__ == "__main__":
    main()
