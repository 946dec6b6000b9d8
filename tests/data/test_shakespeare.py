import logging

import numpy as np
import pytest

from fedbatch.data import shakespeare
from fedbatch.data.partition import from_flower
from fedbatch.data.prepare.build_shakespeare_roles import roles as parse
from fedbatch.data.shakespeare import NO_TARGET, roles, shakespeare_roles


def text(x):
    """Tokens as characters, by the order of the symbols."""
    symbols = sorted(set("".join(roles().values())))
    return "".join(symbols[i] for i in x)


def test_the_package_carries_37_plays_by_role():
    words = roles()
    assert len(words) == 1354 and len({name.split("/")[0] for name in words}) == 37
    assert words["hamlet/HAM"].startswith("A little more than kin, and less than kind!\nNot so, my lord;")
    assert words["midsummer_nights_dream/PUCK"].rstrip().endswith("And Robin shall restore amends.")
    assert not any(mark in "".join(words.values()) for mark in "[{")


def test_causal_targets_are_the_next_characters():
    data = shakespeare_roles(context=32)
    assert data.train_x.dtype == data.train_y.dtype == np.int64 and data.num_classes == 80
    assert data.train_x.shape == data.train_y.shape == (len(data.owner), 32)
    assert np.array_equal(data.train_x[:, 1:], data.train_y[:, :-1])
    first = next(iter(roles().values()))
    assert text(data.train_x[0]) == first[:32] and text(data.train_y[0]) == first[1:33]
    assert text(data.train_x[1]) == first[32:64], "sequences do not overlap"


def test_the_last_tenth_of_each_role_is_held_out():
    data = shakespeare_roles(context=32, min_sequences=1)
    first = next(iter(roles().values()))
    cut = len(first) - round(0.1 * len(first))
    assert (data.owner == 0).sum() == (cut - 1) // 32
    assert text(data.test_x[0]) == first[cut : cut + 32]


def test_small_roles_are_left_out_and_counted(caplog):
    caplog.set_level(logging.INFO)
    data = shakespeare_roles(context=64, min_sequences=16)
    assert np.bincount(data.owner).min() == 16 and data.owner.max() == 594
    assert "595 roles; 759 with fewer than 16 sequences" in caplog.text


def test_masked_inputs_hide_their_targets_and_nothing_else():
    plain, data = shakespeare_roles(context=32), shakespeare_roles("masked", context=32, mask_fraction=0.25)
    assert data.num_classes == 81 and np.array_equal(data.owner, plain.owner)
    hidden = data.train_x == 80
    assert (hidden.sum(axis=1) == 8).all()
    assert np.array_equal(hidden, data.train_y != NO_TARGET)
    assert np.array_equal(data.train_y[hidden], plain.train_x[hidden])
    assert np.array_equal(data.train_x[~hidden], plain.train_x[~hidden])
    share = hidden.mean(axis=0)
    assert abs(share - 0.25).max() < 0.01, "every position alike"
    assert np.array_equal(data.train_x, shakespeare_roles("masked", context=32, mask_fraction=0.25).train_x)


def test_roles_are_the_natural_clients():
    data = shakespeare_roles(context=128, min_sequences=64)
    partition = from_flower(data, kind="NaturalIdPartitioner", partition_by="owner", seed=3)
    assert len(partition) == data.owner.max() + 1
    for client in range(len(partition)):
        positions = partition.lookup(np.array(client), np.arange(partition.sizes(np.array(client))))
        assert len(set(data.owner[positions])) == 1
    with pytest.raises(ValueError, match=r"label: data set shakespeare_roles has only idx, owner"):
        from_flower(data, kind="DirichletPartitioner", partition_by="label", seed=0, num_partitions=2, alpha=1.0)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"task": "next"}, "causal or masked"),
        ({"context": 1}, "context must be >= 2"),
        ({"min_sequences": 0}, "min_sequences >= 1"),
        ({"test_fraction": 0.0}, "fractions"),
        ({"task": "masked", "mask_fraction": 0.001}, "some, not all"),
        ({"min_sequences": 10_000}, "no sequence is left"),
    ],
)
def test_arguments_out_of_range_are_named(arguments, message):
    with pytest.raises(ValueError, match=message):
        shakespeare_roles(**arguments)


def test_a_damaged_file_is_refused(monkeypatch):
    monkeypatch.setattr(shakespeare, "ROLES_SHA256", "0" * 64)
    with pytest.raises(ValueError, match=r"shakespeare_roles.*damaged.*reinstall"):
        roles()


PLAY = """TITLE

Anne, a Lady.

ACT I.

SCENE I. A room in the
palace, by night.

[Enter ANNE
and BOB.]

ANNE.
One line.
{Aside.] Two,

and after a gap.

Bob.
[Rises.]

Bob speaks.

I stand alone.

ANNE.
Three.

THE END
"""


def test_plays_are_cut_into_speeches(monkeypatch):
    monkeypatch.setattr("fedbatch.data.prepare.build_shakespeare_roles.FEWEST_SPEAKER_LINES", 2)
    spoken = parse(PLAY.replace("\n", "\r\n") + "\nBob.\nMore.\n")
    assert spoken == {
        "ANNE": ["One line.\nTwo,\nand after a gap.", "Three."],
        "BOB": ["Bob speaks.\nI stand alone.", "More."],
    }
