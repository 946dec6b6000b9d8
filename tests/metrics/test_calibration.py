import json
from pathlib import Path

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from hypothesis import given
from hypothesis import strategies as st

from fedbatch.metrics import BinSums, brier, calibration_error, classwise_ece, mass_edges, nll, width_edges

GOLDEN = json.loads((Path(__file__).parents[1] / "golden/calibration.json").read_text())
PROBS = torch.tensor(GOLDEN["inputs"]["derived"]["probs"], dtype=torch.float64)
LABELS = torch.tensor(GOLDEN["inputs"]["labels"])
NORMS = [("l1", False), ("l2", False), ("l2", True), ("max", False)]


def draw(n, classes=5, seed=0, decimals=None):
    rng = np.random.default_rng(seed)
    probs = rng.dirichlet(np.full(classes, 0.5), size=n)
    if decimals is not None:  # ties
        probs = np.concatenate([probs.round(decimals)[:, :-1], np.zeros((n, 1))], axis=1)
        probs[:, -1] = 1 - probs.sum(axis=1)
    return torch.tensor(probs), torch.tensor(rng.integers(classes, size=n))


def by_bins(groups, norm, debias):
    """The error from lists of (confidence, correct) pairs, one list a bin, in words of the definition."""
    total, terms = sum(len(group) for group in groups), []
    for group in (np.array(group) for group in groups if len(group)):
        accuracy, gap = group[:, 1].mean(), abs(group[:, 1].mean() - group[:, 0].mean())
        if debias:
            noise = group[:, 1].var(ddof=1) / len(group) if len(group) > 1 else None
            terms.append(0.0 if noise is None else len(group) / total * (gap**2 - noise))
            assert noise is None or np.isclose(noise, accuracy * (1 - accuracy) / (len(group) - 1))
        else:
            terms.append({"l1": gap * len(group) / total, "l2": gap**2 * len(group) / total, "max": gap}[norm])
    return max(terms) if norm == "max" else sum(terms) if norm == "l1" else np.sqrt(max(sum(terms), 0))


def pairs(probs, labels):
    return [(float(p.max()), float(p.argmax() == y)) for p, y in zip(probs, labels, strict=True)]


@pytest.mark.parametrize(
    ("name", "options"),
    [
        ("ece equal_width (lo,hi] M=10 l1", {"bins": 10}),
        ("ece equal_width (lo,hi] M=10 max", {"bins": 10, "norm": "max"}),
        ("ece equal_width (lo,hi] M=15 l2", {"bins": 15, "norm": "l2"}),
        ("ece equal_mass M=3 l1", {"bins": 3, "binning": "mass"}),
        ("ece equal_mass M=3 max", {"bins": 3, "binning": "mass", "norm": "max"}),
        ("ece equal_mass M=4 l1", {"bins": 4, "binning": "mass"}),
        ("ece equal_mass M=4 max", {"bins": 4, "binning": "mass", "norm": "max"}),
    ],
)
def test_golden_values(name, options):
    assert calibration_error(PROBS, LABELS, **options) == pytest.approx(GOLDEN["outputs"][name]["value"], abs=1e-12)


def test_a_value_on_an_edge_belongs_to_the_lower_bin():
    case = GOLDEN["outputs"]["edge: conf exactly on an inner edge 0.6, M=10 l1, (lo,hi]"]
    confidence = torch.tensor(case["inputs"]["conf"], dtype=torch.float64)
    labels = 1 - torch.tensor(case["inputs"]["correct"])
    error = calibration_error(torch.stack([confidence, 1 - confidence], dim=1), labels, bins=10)
    assert error == pytest.approx(case["value"], abs=1e-12)


@pytest.mark.parametrize("tenths", range(1, 10))
def test_decimals_lie_on_their_edges(tenths):
    sums = BinSums.of_events(torch.tensor([tenths / 10], dtype=torch.float64), torch.tensor([True]), width_edges(10))
    assert sums.count[tenths - 1] == 1


def test_certainty_is_in_the_last_bin():
    assert calibration_error(torch.tensor([[1.0, 0.0], [0.95, 0.05]]), torch.tensor([1, 0]), bins=10) == pytest.approx(
        0.475, abs=1e-7
    )
    for value in (0.0, 1.0, 1.0000001):
        assert BinSums.of_events(torch.tensor([value]), torch.tensor([True]), width_edges(3)).count.sum() == 1


@pytest.mark.parametrize(("norm", "debias"), NORMS)
@pytest.mark.parametrize("bins", [1, 7, 15])
def test_equal_width_against_the_definition(bins, norm, debias):
    probs, labels = draw(200)
    groups = [[pair for pair in pairs(probs, labels) if m / bins < pair[0] <= (m + 1) / bins] for m in range(bins)]
    error = calibration_error(probs, labels, bins=bins, norm=norm, debias=debias)
    assert error == pytest.approx(by_bins(groups, norm, debias), abs=1e-12)


@pytest.mark.parametrize(("norm", "debias"), NORMS)
@pytest.mark.parametrize(("n", "bins"), [(200, 1), (200, 7), (203, 15), (4, 6)])
def test_equal_mass_against_the_definition(n, bins, norm, debias):
    probs, labels = draw(n)
    groups = np.array_split(sorted(pairs(probs, labels)), bins)
    error = calibration_error(probs, labels, bins=bins, norm=norm, binning="mass", debias=debias)
    assert error == pytest.approx(by_bins(groups, norm, debias), abs=1e-12)


@given(
    n=st.integers(1, 60),
    clients=st.integers(1, 6),
    bins=st.integers(1, 20),
    seed=st.integers(0, 10**6),
    decimals=st.sampled_from([None, 1]),
    binning=st.sampled_from(["width", "mass"]),
    kind=st.sampled_from(NORMS),
)
def test_clients_add_up_to_the_pool(n, clients, bins, seed, decimals, binning, kind):
    probs, labels = draw(n, seed=seed, decimals=decimals)
    owner = torch.tensor(np.random.default_rng(seed + 1).integers(clients, size=n))
    parts = [(probs[owner == c], labels[owner == c]) for c in range(clients)]  # some without examples
    confidences = [part.amax(dim=1) for part, _ in parts]
    edges = width_edges(bins)
    if binning == "mass":
        edges = mass_edges(lambda at: sum((c[:, None] <= at).sum(dim=0) for c in confidences), bins)
    total = BinSums.of(*parts[0], edges)
    for part in parts[1:]:
        total = total + BinSums.of(*part, edges)
    norm, debias = kind
    pooled = calibration_error(probs, labels, bins=bins, norm=norm, binning=binning, debias=debias)
    # a debiased square near 0 loses digits to its root
    assert total.error(norm, debias) ** 2 == pytest.approx(pooled**2, abs=1e-14)
    assert torch.equal(total.count, BinSums.of(probs, labels, edges).count)


def test_a_mean_of_clients_is_only_an_upper_bound():
    case = GOLDEN["outputs"]["federated: mean of per-client ECE l1 M=10 (upper bound on global)"]
    clients = [calibration_error(PROBS[i : i + 4], LABELS[i : i + 4], bins=10) for i in (0, 4, 8)]
    assert clients == pytest.approx(case["per_client"], abs=1e-12)
    assert calibration_error(PROBS, LABELS, bins=10) < case["value"]


@given(seed=st.integers(0, 10**6), bins=st.integers(1, 8))
def test_equal_mass_does_not_depend_on_the_order_of_ties(seed, bins):
    probs, labels = draw(30, seed=seed, decimals=1)
    order = torch.randperm(30, generator=torch.Generator().manual_seed(seed))
    first, second = (
        calibration_error(p, y, bins=bins, binning="mass") for p, y in ((probs, labels), (probs[order], labels[order]))
    )
    assert first == pytest.approx(second, abs=1e-12)


def test_debiasing_removes_most_of_what_chance_adds():
    generator = torch.Generator().manual_seed(0)
    p = 0.5 + 0.5 * torch.rand(300, 200, generator=generator, dtype=torch.float64)
    labels = (torch.rand(300, 200, generator=generator) > p).long()
    plain, debiased = (
        np.mean(
            [
                BinSums.of_events(c, y == 0, width_edges(15)).error("l2", debias) ** 2
                for c, y in zip(p, labels, strict=True)
            ]
        )
        for debias in (False, True)
    )
    assert debiased < 0.5 * plain  # not 0: negative squares are cut off


def test_classwise_against_the_definition():
    probs, labels = draw(150)
    errors = []
    for k in range(5):
        own = [(float(p), float(y == k)) for p, y in zip(probs[:, k], labels, strict=True)]
        groups = [[pair for pair in own if m / 15 < pair[0] <= (m + 1) / 15] for m in range(15)]
        errors.append(by_bins(groups, "l1", False))
    assert classwise_ece(probs, labels) == pytest.approx(np.mean(errors), abs=1e-12)


def test_scores():
    logits = torch.randn(40, 6, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    labels = torch.arange(40) % 6
    assert nll(logits.softmax(1), labels) == pytest.approx(float(F.cross_entropy(logits, labels)), abs=1e-12)
    assert nll(torch.tensor([[1.0, 0.0]]), torch.tensor([1])) == float("inf")
    assert brier(torch.tensor([[0.5, 0.25, 0.25]]), torch.tensor([1])) == 0.25 + 0.5625 + 0.0625
    assert brier(PROBS, LABELS) == pytest.approx(GOLDEN["outputs"]["brier sum-over-classes mean"]["value"], abs=1e-12)


def test_without_examples():
    nothing = torch.zeros(0, 3), torch.zeros(0, dtype=torch.long)
    for binning in ("width", "mass"):
        assert np.isnan(calibration_error(*nothing, binning=binning))
    assert np.isnan([classwise_ece(*nothing), nll(*nothing), brier(*nothing)]).all()


@pytest.mark.parametrize(
    ("options", "word"),
    [
        ({"bins": 0}, "bins"),
        ({"norm": "l3"}, "norm"),
        ({"binning": "size"}, "binning"),
        ({"norm": "l1", "debias": True}, "debias"),
        ({"norm": "max", "debias": True}, "debias"),
    ],
)
def test_bad_options(options, word):
    with pytest.raises(ValueError, match=word):
        calibration_error(PROBS, LABELS, **options)


def test_bad_shapes():
    with pytest.raises(ValueError, match="labels"):
        calibration_error(PROBS, LABELS[:-1])
