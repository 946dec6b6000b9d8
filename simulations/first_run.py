"""The default run over seeds: the README's table and figure.

    python -m simulations.first_run                 three seeds, about a minute
    python -m simulations.first_run --quick         one short run

For each seed, the same number of rounds is also run with the small and with the large batch throughout, so that
what the switch costs and brings is seen at once. Writes
docs/results/first_run.parquet and .md, and docs/figures/first_run.png.
"""

import argparse
import shutil
import tempfile
from pathlib import Path

import polars as pl

import fedbatch
from fedbatch.results.figure import save_figure

ROOT = Path(__file__).parents[1]
VARIANTS = {
    "small batch": ["controller=fixed"],
    "large batch": ["controller=fixed", "cohort_size=64", "client_batch_size=16"],
    "noise-scale switch": [],
}


def main() -> None:
    """Run all variants and seeds, write the table and the figure."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--quick", action="store_true", help="one seed, 60 rounds, results in a temporary folder")
    quick = parser.parse_args().quick
    seeds, extra = ([0], ["rounds=60"]) if quick else ([0, 1, 2], [])
    with tempfile.TemporaryDirectory() as scratch:
        runs = [run_once(Path(scratch), variant, seed, extra) for seed in seeds for variant in VARIANTS]
        out = Path(scratch) if quick else ROOT / "docs"
        table = pl.DataFrame(runs)
        save(table, out)
        shutil.copy(Path(scratch) / "noise-scale switch-0" / "noise_scale.png", out / "figures" / "first_run.png")
        print(markdown(table))


def run_once(scratch: Path, variant: str, seed: int, extra: list[str]) -> dict[str, object]:
    """One run; its line of the table."""
    folder = scratch / f"{variant}-{seed}"
    overrides = [*VARIANTS[variant], *extra, f"seed={seed}", f"run_dir={folder}"]
    result = fedbatch.run(*overrides)
    summary, rounds = result.summary, result.rounds
    save_figure(rounds.to_dicts(), folder / "noise_scale.png")
    switches = summary["phase_switches"]
    return {
        "variant": variant,
        "seed": seed,
        "rounds": summary["rounds"],
        "test_accuracy": summary["test_accuracy"],
        "examples": summary["examples"],
        "simulated_seconds": summary["simulated_seconds"],
        "noise_scale_early": rounds["noise_scale"][min(49, rounds.height - 1)],
        "noise_scale_end": summary["noise_scale"],
        "switch_round": switches[0]["round"] if switches else None,
    }


def save(table: pl.DataFrame, out: Path) -> None:
    """Write the runs as data and as the README's table."""
    for folder in ("results", "figures"):
        (out / folder).mkdir(parents=True, exist_ok=True)
    table.write_parquet(out / "results" / "first_run.parquet")
    (out / "results" / "first_run.md").write_text(markdown(table))


def markdown(table: pl.DataFrame) -> str:
    """Mean and standard deviation over seeds of each variant."""
    lines = [
        "| run | test accuracy | examples | simulated s | noise scale, round 50 | at the end | first switch at round |",
        "|---|---|---|---|---|---|---|",
    ]
    for variant in VARIANTS:
        rows = table.filter(pl.col("variant") == variant)
        cells = [
            _mean_and_spread(rows["test_accuracy"] * 100, "{:.1f}") + " %",
            _mean_and_spread(rows["examples"], "{:,.0f}"),
            _mean_and_spread(rows["simulated_seconds"], "{:.1f}"),
            _mean_and_spread(rows["noise_scale_early"], "{:.0f}"),
            _mean_and_spread(rows["noise_scale_end"], "{:.0f}"),
            _mean_and_spread(rows["switch_round"].cast(pl.Float64), "{:.0f}"),
        ]
        lines.append(f"| {variant} | {' | '.join(cells)} |")
    return "\n".join(lines) + "\n"


def _mean_and_spread(values: pl.Series, form: str) -> str:
    known = values.drop_nulls()
    if known.is_empty():
        return "-"
    spread = known.std() if len(known) > 1 else 0.0
    return form.format(known.mean()) + (f" ± {form.format(spread)}" if spread else "")


if __name__ == "__main__":
    main()
