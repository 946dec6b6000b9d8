"""Whose answers a round takes, by hand; and speeds from a file."""

import numpy as np
import pytest

from fedbatch.batch import TimeModel
from fedbatch.batch.deadline import arrivals

SECONDS = np.array([3.0, 1.0, 9.0, 5.0, 2.0])
ALL = np.ones(5, dtype=bool)


@pytest.mark.parametrize(
    ("stays", "deadline", "wanted", "taken", "late", "gone", "least"),
    [
        (ALL, None, None, [0, 1, 2, 3, 4], [], [], 0.0),
        (ALL, 5.0, None, [0, 1, 3, 4], [2], [], 5.0),  # at the deadline is in time
        (ALL, 10.0, None, [0, 1, 2, 3, 4], [], [], 0.0),
        (ALL, None, 2, [1, 4], [0, 2, 3], [], 0.0),
        (ALL, 2.5, 3, [1, 4], [0, 2, 3], [], 2.5),  # fewer than wanted: it waits for the deadline
        (ALL, 2.5, 2, [1, 4], [0, 2, 3], [], 0.0),
        (ALL, 0.5, None, [], [0, 1, 2, 3, 4], [], 0.5),
        (np.array([1, 0, 1, 1, 1], dtype=bool), None, None, [0, 2, 3, 4], [], [1], 1.0),  # noticed when it was due
        (np.array([1, 0, 1, 1, 1], dtype=bool), None, 2, [0, 4], [2, 3], [1], 0.0),
        (np.array([1, 1, 0, 1, 1], dtype=bool), 20.0, None, [0, 1, 3, 4], [], [2], 9.0),
        (np.array([1, 1, 0, 1, 1], dtype=bool), 7.0, None, [0, 1, 3, 4], [], [2], 7.0),
    ],
)
def test_by_hand(stays, deadline, wanted, taken, late, gone, least):
    found = arrivals(SECONDS, stays, deadline, wanted)
    assert [np.flatnonzero(column).tolist() for column in (found.taken, found.late, found.gone)] == [taken, late, gone]
    assert found.least_seconds == least


def test_equal_times_go_by_client():
    assert np.flatnonzero(arrivals(np.ones(5), ALL, None, 2).taken).tolist() == [0, 1]


def model(tmp_path, text, **changed):
    (tmp_path / "speeds.csv").write_text(text)
    return TimeModel(0.1, 0.5, 1.0, 100.0, 10.0, speeds=str(tmp_path / "speeds.csv"), **changed)


def test_speeds_of_a_file(tmp_path):
    links = "client,seconds_per_example,down_bytes_per_s,up_bytes_per_s\n"
    found = model(tmp_path, links + "5,0.5,50,20\n1,2,100,10\n3,0,200,40\n")
    clients, examples = np.array([1, 5]), np.array([3, 10])
    seconds = found.client_seconds(0, clients, examples, 200, 40)
    assert seconds.tolist() == [2 * 3 + 2 + 2 + 4, 0.5 * 10 + 2 + 4 + 2]
    assert found.round_seconds(0, clients, examples, 200, 40) == 14.0
    assert found.typical() == TimeModel(0.5, 0.0, 1.0, 100.0, 20.0)
    plain = model(tmp_path, "client,seconds_per_example\n1,2\n5,0.5\n")
    assert plain.client_seconds(0, clients, examples, 200, 40).tolist() == [6 + 2 + 6, 5 + 2 + 6]
    assert found.round_seconds(0, clients[:0], examples[:0], 200, 40) == 2 + 2 + 4


def test_a_node_does_not_need_the_file():
    assert TimeModel(0.1, 0.5, 1.0, 100.0, 10.0, speeds="not_here.csv").latency_seconds == 1.0


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("client,seconds_per_example\n1,2\n1,3\n", "names a client twice"),
        ("client,seconds_per_example\n1,-2\n5,1\n", "seconds_per_example must be positive"),
        ("client,seconds_per_example,up_bytes_per_s\n1,2,0\n5,1,1\n", "up_bytes_per_s must be positive"),
        ("client,seconds_per_example\n1,2\n", "has no row for client 5"),
        ("client,seconds\n1,2\n", "has no column seconds_per_example"),
    ],
)
def test_a_wrong_file_is_refused(tmp_path, text, words):
    with pytest.raises(ValueError, match=f"time_model.speeds: .*{words}"):
        model(tmp_path, text).client_seconds(0, np.array([1, 5]), np.ones(2), 1, 1)


def test_a_round_is_its_slowest_client_and_as_it_always_was():
    """The formula of before there were clients' own seconds, to the last bit."""
    rng = np.random.default_rng(0)
    for _ in range(200):
        given = TimeModel(*(float(v) for v in rng.uniform(0.001, 3, 5)))
        clients, examples = np.arange(7), rng.integers(1, 90, 7)
        down, up = (int(v) for v in rng.integers(1, 10**6, 2))
        alone = [given.round_seconds(4, clients[k : k + 1], examples[k : k + 1], 0, 0) for k in range(7)]
        transfer = down / given.bandwidth_down_bytes_per_second + up / given.bandwidth_up_bytes_per_second
        compute = [seconds - 2 * given.latency_seconds for seconds in alone]
        now = given.round_seconds(4, clients, examples, down, up)
        assert now == pytest.approx(max(compute) + 2 * given.latency_seconds + transfer, rel=1e-14)
        assert now == given.client_seconds(4, clients, examples, down, up).max()
