import json
import shlex

import polars as pl
import pytest
import torch

from fedbatch.config.build import build
from fedbatch.config.compose import config_json


def tried(**numbers):
    rows = []
    for name, (accuracy, ece) in numbers.items():
        family = {"CE": "CE", "f": "focal", "s": "CE + soft objective"}[name.rstrip("0123456789")]
        row = {"loss": name, "family": family, "status": "finished", "setting": "a", "tuning": True, "seed": 100}
        rows.append(row | {"held_out_accuracy": accuracy, "held_out_ece_mass": ece})
    return rows


def losses(rows):
    from simulations.soft_calibration_cells import Loss

    return [Loss(row["family"], row["loss"], ()) for row in rows]


def test_held_out_data_choose_within_one_per_cent_of_the_accuracy_of_cross_entropy():
    from simulations.soft_calibration import choose

    rows = tried(CE=(0.9, 0.2), f1=(0.892, 0.1), f2=(0.890, 0.01), s1=(0.88, 0.0))
    assert [loss.name for loss in choose(losses(rows), rows)] == ["CE", "f1"]  # 0.891 is the floor
    rows[2]["held_out_accuracy"] = 0.8911
    assert [loss.name for loss in choose(losses(rows), rows)] == ["CE", "f2"]
    rows[2]["status"] = "failed"
    assert [loss.name for loss in choose(losses(rows), rows)] == ["CE", "f1"]


def table(ece, accuracy):
    """Three seeds of cross-entropy and of a composite with given ECE and accuracy."""
    rows = tried(CE=(0.9, 0.2), f1=(0.9, 0.1), s1=(0.9, 0.05))
    for seed in range(3):
        for name, family, value, right in (
            ("CE", "CE", 0.2 + 0.01 * seed, 0.9),
            ("f1", "focal", 0.1 + 0.01 * seed, 0.9),
            ("s1", "CE + soft objective", ece * (0.2 + 0.01 * seed), accuracy + 0.0001 * seed),
        ):
            row = {"loss": name, "family": family, "status": "finished", "setting": "a", "tuning": False, "seed": seed}
            row |= {"train_accuracy": 1.0, "train_ece_mass": 0.01, "value": 1.5}
            for shift in ("clean", "noise"):
                for kind in ("none", "fitted"):
                    rows.append(row | {"shift": shift, "temperature": kind, "accuracy": right, "ece_mass": value})
    return pl.DataFrame(rows, infer_schema_length=None)


@pytest.mark.parametrize(
    "ece, accuracy, expected",
    [(0.2, 0.899, "holds"), (0.2, 0.88, "does not hold at this scale"), (0.7, 0.899, "does not hold at this scale")],
)
def test_the_claim_is_judged_by_intervals_of_both_its_parts(ece, accuracy, expected):
    from simulations.soft_calibration_report import claim, markdown

    rows = table(ece, accuracy)
    own = rows.filter((pl.col("shift") == "clean") & (pl.col("temperature") == "none") & ~pl.col("tuning"))
    answer, less, lost = claim(own.filter(pl.col("loss") == "s1"), own.filter(pl.col("loss") == "CE"))
    assert answer == expected
    assert less[0] == pytest.approx(100 * (1 - ece))
    assert lost[0] == pytest.approx(100 * (1 - (accuracy + 0.0001) / 0.9))
    told = markdown(rows)
    assert f"| s1 | {answer} | {100 * (1 - ece):.1f}" in told
    assert f"{ece * 0.21 - 0.11:+.3f}" in told  # ECE beside focal loss


def test_a_composite_is_its_two_losses_and_focal_loss_takes_the_place_of_cross_entropy():
    from simulations.soft_calibration_cells import composites

    logits, labels = torch.randn(200, 10, generator=torch.Generator().manual_seed(0)), torch.arange(200) % 10
    log_p = logits.log_softmax(1)[torch.arange(200), labels]
    plain = {"CE": -log_p.mean(), "focal": -((1 - log_p.exp()) ** 3 * log_p).mean()}
    for loss in composites(3.0):
        overrides = shlex.join(["dataset=digits", *loss.overrides, "run_dir=."])
        node = json.loads(config_json({"overrides": overrides}))["loss"]
        composite, second = build("loss", node), build("loss", node["secondary"])
        weight, temperature = (float(word.strip("()")) for word in (loss.name.split()[2], loss.name.split()[-1]))
        assert second.temperature == temperature
        expected = plain[loss.name.split()[0]] + weight * second(logits, labels)
        assert float(composite(logits, labels)) == pytest.approx(float(expected), rel=1e-5), loss.name


@pytest.mark.slow
def test_the_quick_form(tmp_path, capsys):
    from simulations import soft_calibration

    soft_calibration.main(["--quick", "--runs", str(tmp_path / "runs"), "--out", str(tmp_path)])
    found = pl.read_parquet(tmp_path / "results" / "soft_calibration.parquet")
    assert set(found["status"]) == {"finished"}
    assert "ECE cut by 60 % for less than 1 % of accuracy?" in capsys.readouterr().out
    assert (tmp_path / "figures" / "soft_calibration.png").stat().st_size > 10_000
