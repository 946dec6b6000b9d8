import pytest

from fedbatch.controllers import Phase, late_switch
from tests.controllers.played import played

SMALL, LARGE = Phase("small", 16, 4), Phase("large", 64, 16)


@pytest.mark.parametrize("share", [0.1, 0.6, 0.8])
@pytest.mark.parametrize("rounds", [60, 1000])
def test_small_batches_use_their_share_of_the_examples(rounds, share):
    sizes = played(late_switch(small=SMALL, large=LARGE, rounds=rounds, share=share), rounds)
    assert set(sizes) == {64, 1024} and sizes == sorted(sizes)
    used = 64 * sizes.count(64) / sum(sizes)
    assert used == pytest.approx(share, abs=1024 / sum(sizes)), "to one round"


def test_clients_that_give_all_are_counted_as_alike():
    small, large = Phase("small", 10), Phase("large", 20)
    names = [p for p in played(late_switch(small=small, large=large, rounds=100, share=0.5), 100, by="name")]
    assert names.count("small") == 67, "twice as many rounds of half as many clients"


@pytest.mark.parametrize(
    ("kwargs", "message"),
    [
        ({"share": 0.0}, r"controller.share must be in \(0, 1\)"),
        ({"share": 1.0}, "controller.share must be in"),
        ({"rounds": 2}, "without a round of 2"),
        ({"large": Phase("large", 64)}, "small both a client_batch_size, or neither"),
    ],
)
def test_what_cannot_work_is_refused(kwargs, message):
    with pytest.raises(ValueError, match=message):
        late_switch(**{"small": SMALL, "large": LARGE, "rounds": 100, "share": 0.7, **kwargs})
