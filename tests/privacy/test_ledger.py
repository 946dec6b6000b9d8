import pytest
from hypothesis import given
from hypothesis import strategies as st

from fedbatch.privacy import ledger
from fedbatch.privacy.ledger import Ledger, LedgerEntry

ONE = LedgerEntry(0, "aa", 0.1, 1.0, 1)


def test_a_replay_is_charged_once_and_other_parameters_again():
    once = Ledger().charge(ONE)
    assert once.charge(ONE) is once
    again = once.charge(LedgerEntry(0, "bb", 0.1, 1.0, 1))
    assert again.schedules() == [[(0.1, 1.0, 2)]]


def test_each_client_has_its_own_account_and_the_worst_counts():
    spent = Ledger(4)
    spent = spent.charge(LedgerEntry(0, "a", 0.1, 1.0, 1, (0, 1))).charge(LedgerEntry(1, "b", 0.1, 1.0, 2, (1, 3)))
    assert spent.schedules() == [[(0.1, 1.0, 3)]]  # client 1
    spent = spent.charge(LedgerEntry(2, "c", 0.4, 2.0, 1, (3,)))
    assert spent.schedules() == [[(0.1, 1.0, 2), (0.4, 2.0, 1)], [(0.1, 1.0, 3), (0.4, 2.0, 0)]]  # clients 3 and 1


def test_many_incomparable_accounts_get_an_upper_bound():
    spent = Ledger(6)
    for client in range(6):
        spent = spent.charge(LedgerEntry(client, "a", 0.1, 1.0, 10 - client, (client,)))
        spent = spent.charge(LedgerEntry(client, "b", 0.2, 1.0, 1 + client, (client,)))
    assert spent.schedules() == [[(0.1, 1.0, 10), (0.2, 1.0, 6)]]


@given(st.lists(st.tuples(st.integers(0, 3), st.sampled_from(["a", "b"]), st.sampled_from([0.1, 0.2]))))
def test_order_and_repetition_do_not_change_what_is_spent(entries):
    releases = [LedgerEntry(round_, params, q, 1.0, 1) for round_, params, q in entries]
    spent = Ledger.of(1, releases + releases[::-1])
    assert len(spent.releases) == len(set(releases))
    assert sum(steps for _, _, steps in spent.schedules()[0]) == len(set(releases))


def test_the_file_keeps_everything_but_a_line_that_was_cut_short(tmp_path):
    path = tmp_path / ledger.FILE
    assert ledger.read(path) == []
    two = LedgerEntry(1, "bb", 0.2, 1.5, 3, (4, 7))
    ledger.write(path, ONE)
    ledger.write(path, two)
    whole = path.read_bytes()
    path.write_bytes(whole + b'{"round": 2, "par')
    assert ledger.read(path) == [ONE, two]
    assert path.read_bytes() == whole
    ledger.write(path, LedgerEntry(2, "cc", 0.1, 1.0, 1))
    assert len(ledger.read(path)) == 3


def test_a_damaged_middle_is_not_forgotten_quietly(tmp_path):
    path = tmp_path / ledger.FILE
    ledger.write(path, ONE)
    path.write_bytes(b"{broken\n" + path.read_bytes())
    with pytest.raises(ValueError, match="Expecting"):
        ledger.read(path)


def test_a_line_is_on_disk_when_it_is_written(tmp_path, monkeypatch):
    path, synced = tmp_path / ledger.FILE, []
    monkeypatch.setattr(ledger.os, "fsync", lambda number: synced.append(path.read_bytes()))
    ledger.write(path, ONE)
    assert len(synced) == 1 and synced[0] == path.read_bytes() and synced[0].endswith(b"}\n")
