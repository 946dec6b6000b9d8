import polars as pl
import pytest


def rows():
    found = []
    for name, factor in {"AdamW": 1.0, "LARS": 1.2, "LAMB": 1.002, "MERIT": 0.99}.items():
        for batch, loss in {16: 2.0, 64: 2.01, 256: 2.5}.items():
            for seed in (0, 1):
                row = {"optimizer": name, "batch": batch, "rounds": 10, "tokens": 1000, "rate": 0.01, "seed": seed}
                row |= {"status": "finished", "loss": loss * factor, "evaluated": [5, 10]}
                found.append(row | {"logits": [[1.0, 2.0], [3.0, 4.0]]})
    return pl.DataFrame(found)


def test_the_report_finds_the_largest_batch_that_keeps_the_loss(tmp_path):
    from simulations.optimizers_report import markdown, save_figure

    text = markdown(rows())
    assert "| MERIT | 64 | 64 |" in text and "| LARS | 64 | none |" in text and "| AdamW | 64 | none |" in text
    assert "| LAMB | 16 | 10 | 0.01 | 2.004 +- 0.000 | 4.0 +- 0.0 |" in text
    save_figure(rows(), tmp_path / "figure.png")
    assert (tmp_path / "figure.png").stat().st_size > 10_000


@pytest.mark.slow
def test_the_quick_form_trains_every_optimizer(tmp_path, capsys):
    from simulations import optimizers

    optimizers.main(["--quick", "--runs", str(tmp_path / "runs"), "--out", str(tmp_path)])
    found = pl.read_parquet(tmp_path / "results" / "optimizers.parquet")
    assert found.height == len(optimizers.OPTIMIZERS) * len(optimizers.QUICK.batches)
    assert (found["status"] == "finished").all() and (found["loss"] < 4.3).all()  # 82 symbols: 4.4 nats at the start
    assert "largest batch within 1 %" in capsys.readouterr().out
