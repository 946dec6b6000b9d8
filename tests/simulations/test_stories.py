"""The stories end with their numbers and a picture; in their quick form they only show that they work."""

import sys

import pytest

from simulations.stories import clients_needed, hospitals, phones


@pytest.mark.slow
@pytest.mark.parametrize(
    ("story", "says"),
    [
        (clients_needed, "critical cohort: "),
        (hospitals, "plan: noise multiplier "),
        (phones, "LoRA, epsilon 8 for each phone: loss "),
    ],
)
def test_a_story_ends_with_its_picture(story, says, tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(sys, "argv", ["story", "--quick", "--runs", str(tmp_path)])
    story.main()
    said = capsys.readouterr().out
    name = story.__name__.rsplit(".", 1)[-1]
    assert says in said and said.endswith(f"picture: {tmp_path / name}.png\n") and (tmp_path / f"{name}.png").is_file()


def test_hospitals_have_tables_of_several_sizes_and_every_patient_once(tmp_path):
    import polars as pl

    rows = pl.read_csv(hospitals.write_table(tmp_path / "patients.csv"))
    sizes = rows["hospital"].value_counts()["count"]
    assert rows.shape == (569, 32) and len(sizes) == 8 and sizes.max() > 4 * sizes.min()


def test_a_phone_has_its_own_words_and_none_of_the_test():
    company, adapted = phones.corpora()
    assert len(set(adapted.owner)) == adapted.owner.max() + 1 > 300 and company.num_classes == adapted.num_classes
    assert phones.typed("The  Spring,\nthe head") == "th sprng, th hd"
    rows = {row.tobytes() for row in adapted.train_x}
    shared = sum(row.tobytes() in rows for row in adapted.test_x)
    assert shared < 0.01 * len(adapted.test_x)  # a line that is said twice
    assert (adapted.train_x[:, 1:] == adapted.train_y[:, :-1]).all()  # the label is the next symbol
