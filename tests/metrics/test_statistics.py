import numpy as np
import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st

from fedbatch.losses import SBECE
from fedbatch.metrics import BinSums, brier, calibration_error, classwise_ece, nll, width_edges
from fedbatch.metrics.bootstrap import spread
from fedbatch.metrics.report import Calibration, Predicted
from fedbatch.metrics.statistics import STATISTICS

AT = {
    "scaled_nll": torch.tensor([0.7], dtype=torch.float64),
    "soft_bins": torch.tensor([1.0, 0.5], dtype=torch.float64),
}


def draw(n, classes=4, seed=0):
    source = torch.Generator().manual_seed(seed)
    logits = 3 * torch.randn(n, classes, generator=source, dtype=torch.float64)
    return logits, torch.randint(classes, (n,), generator=source)


class Clients:
    """A pool in several places."""

    num_classes = 4

    def __init__(self, parts):
        self.parts = parts

    def sums(self, statistic, at):
        return sum(STATISTICS[statistic](*part, at) for part in self.parts)


@pytest.mark.parametrize("name", STATISTICS)
def test_statistics_add_up_and_of_nothing_are_zeros(name):
    (logits, labels), at = draw(60), AT.get(name, width_edges(15))
    whole = STATISTICS[name](logits, labels, at)
    parts = sum(
        STATISTICS[name](z, y, at) for z, y in zip(logits.split([7, 0, 53]), labels.split([7, 0, 53]), strict=True)
    )
    if name == "scores":  # the last is the mean of clients' own errors, which are not those of the whole
        assert parts[-1] > whole[-1]
        whole, parts = whole[:-1], parts[:-1]
    torch.testing.assert_close(parts, whole, rtol=0, atol=1e-12)
    nothing = STATISTICS[name](logits[:0], labels[:0], at)
    assert nothing.shape == STATISTICS[name](logits, labels, at).shape and not nothing.any()


@settings(max_examples=15, deadline=None)
@given(n=st.integers(1, 50), clients=st.integers(1, 5), seed=st.integers(0, 10**6))
def test_the_columns_of_clients_are_those_of_their_pooled_examples(n, clients, seed):
    logits, labels = draw(n, seed=seed)
    owner = torch.from_numpy(np.random.default_rng(seed).integers(clients, size=n))
    apart = Calibration(replicates=2).columns(
        Clients([(logits[owner == c], labels[owner == c]) for c in range(clients)])
    )
    whole = Calibration(replicates=2).columns(Predicted(logits, labels))
    assert apart.pop("mean_ece") >= whole.pop("mean_ece") - 1e-12
    roots = {name: (apart.pop(name), whole.pop(name)) for name in ("ece_mass", "ece_mass_se", "ece_se")}
    assert roots["ece_mass"][0] ** 2 == pytest.approx(roots["ece_mass"][1] ** 2, abs=1e-12)  # a root at 0 loses digits
    assert apart == pytest.approx(whole, abs=1e-12)


def test_the_columns_are_what_the_functions_say():
    logits, labels = draw(300)
    probs = logits.softmax(dim=1)
    found = Calibration().columns(Predicted(logits, labels))
    assert found["ece"] == pytest.approx(calibration_error(probs, labels), abs=1e-12)
    assert found["ece_mass"] == pytest.approx(
        calibration_error(probs, labels, norm="l2", binning="mass", debias=True), abs=1e-12
    )
    assert found["classwise_ece"] == pytest.approx(classwise_ece(probs, labels), abs=1e-12)
    assert (found["nll"], found["brier"]) == (pytest.approx(nll(probs, labels)), pytest.approx(brier(probs, labels)))
    assert found["accuracy"] == float((logits.argmax(1) == labels).double().mean()) and found["examples"] == 300
    assert found["sb_ece"] == pytest.approx(float(SBECE()(logits, labels)), abs=1e-8)  # which smooths its root
    assert found["mean_ece"] == pytest.approx(found["ece"], abs=1e-12)


def test_without_examples_scores_are_not_numbers():
    found = Calibration().columns(Predicted(torch.zeros(0, 3, dtype=torch.float64), torch.zeros(0, dtype=torch.long)))
    assert found.pop("examples") == 0 and np.isnan(list(found.values())).all()


@pytest.mark.parametrize(("norm", "binning", "debias"), [("l1", "width", False), ("l2", "width", True)])
def test_the_spread_is_that_of_a_bootstrap_of_single_examples(norm, binning, debias):
    logits, labels = draw(800)
    probs, rng = logits.softmax(dim=1), np.random.default_rng(0)
    errors = []
    for _ in range(200):
        again = torch.from_numpy(rng.integers(800, size=800))
        errors.append(calibration_error(probs[again], labels[again], norm=norm, binning=binning, debias=debias))
    sums = BinSums.of(probs, labels, width_edges(15))
    assert spread(sums, norm, debias, replicates=2000) == pytest.approx(np.std(errors), rel=0.15)


def test_derivatives_of_the_scaled_nll():
    logits, labels = draw(40)

    def value(inverse):
        return F.cross_entropy(inverse * logits, labels, reduction="sum")

    at = torch.tensor(0.7, dtype=torch.float64)
    slope, curvature = (torch.func.grad(f)(at) for f in (value, torch.func.grad(value)))
    expected = torch.stack([value(at), slope, curvature])
    torch.testing.assert_close(STATISTICS["scaled_nll"](logits, labels, at[None]), expected)
