"""Single releases: the law of their noise and sampling, their sensitivity, and agreement of every way to clip."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from scipy import stats
from torch import nn

from fedbatch.clients.clip import Clip
from fedbatch.core.errors import RunFailedError
from fedbatch.executors.choose import EXECUTORS, Executors
from fedbatch.node.private import example_job, sample_examples, train_private
from fedbatch.privacy.randomness import fingerprint
from tests.privacy.releases import contribution, plan_of, sum_of, with_data, with_noise

CLIENTS = np.arange(4)


def noise_of(run, sigma, **options):
    return sum_of(with_noise(run, sigma), **options) - sum_of(with_noise(run, 0.0), **options)


def deviation(run):
    return run.privacy.update_noise(run.controller.phases[0])


@pytest.mark.parametrize("generator", ["philox", "chacha20"])
def test_noise_is_gaussian_with_the_right_deviation_whole_and_per_tensor(make_task, generator):
    run = make_task("example_local", f"privacy.generator={generator}", "model.width=64")
    for round_ in range(4):
        noise = noise_of(run, 1.0, clients=CLIENTS[:1], round_=round_) / deviation(run)
        pieces = [noise, *(t.flatten() for t in run.node_model.split(noise)), noise[: len(noise) // 2]]
        for piece in pieces:
            z = piece.numpy()
            chi2 = stats.chi2.sf(float(z @ z), len(z))
            assert 1e-6 < chi2 < 1 - 1e-6 and stats.kstest(z, "norm").pvalue > 1e-6


def test_noise_is_uncorrelated_over_clients_and_rounds_and_parameters(make_task):
    run = make_task("example_local", "model.width=64")
    other = run.new_model().params * 1.001
    noises = [noise_of(run, 1.0, clients=[c], round_=r) for c in (0, 1, 2) for r in (0, 1)]
    noises.append(noise_of(run, 1.0, clients=[0], params=other))
    correlations = np.corrcoef(torch.stack(noises).numpy())
    assert abs(correlations[~np.eye(len(noises), dtype=bool)]).max() < 6 / len(noises[0]) ** 0.5


def test_clients_with_the_same_data_have_their_own_noise(make_task):
    run = make_task("example_local", "model.width=64")
    one, two = np.flatnonzero(run.privacy.terms.sizes == run.privacy.terms.sizes[0])[:2]
    same = with_data(run, torch.ones_like(run.train_x), torch.zeros_like(run.train_y))
    first, second = (noise_of(same, 1.0, clients=[client]).numpy() for client in (one, two))
    assert abs(np.corrcoef(first, second)[0, 1]) < 6 / len(first) ** 0.5


def test_a_replay_is_the_same_release_and_a_node_adds_each_clients_own_noise(make_task):
    run = make_task("example_local")
    assert torch.equal(sum_of(run, CLIENTS), sum_of(run, CLIENTS))
    apart = sum(sum_of(run, [c]) for c in CLIENTS)
    assert (apart - sum_of(run, CLIENTS)).norm() < 1e-5 * apart.norm()


def test_shares_of_noise_add_up_and_half_the_clients_carry_half_of_it(make_task):
    run = make_task("example_distributed", "privacy.min_clients=4", "cohort_size=8", "model.width=64")
    whole = deviation(run)
    four = noise_of(run, 1.0, clients=CLIENTS).numpy()
    assert np.std(four) == pytest.approx(whole, rel=0.03)
    assert np.std(noise_of(run, 1.0, clients=CLIENTS[:2]).numpy()) == pytest.approx(whole / 2**0.5, rel=0.03)
    colluding = make_task("example_distributed", "privacy.min_clients=4", "privacy.colluders=3", "model.width=64")
    assert np.std(noise_of(colluding, 1.0, clients=[0]).numpy()) == pytest.approx(whole, rel=0.03)


def test_poisson_sampling_of_examples(make_task):
    run = make_task("example_local")
    phase, size = run.controller.phases[0], int(run.privacy.terms.sizes[0])
    q = run.privacy.terms.sample_rate(phase)
    assert q == pytest.approx(4 / run.privacy.terms.sizes.mean())
    drawn = [sample_examples(run, run.privacy, phase, 0, (r, "h")) for r in range(600)]
    own = run.partition.lookup(np.zeros(size, np.int64), np.arange(size))
    assert all(np.isin(d, own).all() and len(set(d)) == len(d) for d in drawn)
    counts = np.array([len(d) for d in drawn])
    assert abs(counts.mean() - q * size) < 5 * (q * (1 - q) * size / 600) ** 0.5
    scaled = counts.var(ddof=1) / (q * (1 - q) * size) * 599
    assert 1e-6 < stats.chi2.sf(scaled, 599) < 1 - 1e-6
    assert abs(np.corrcoef(counts[1:], counts[:-1])[0, 1]) < 5 / 600**0.5
    per_example = np.bincount(np.searchsorted(np.sort(own), np.concatenate(drawn)), minlength=size)
    assert stats.chisquare(per_example).pvalue > 1e-6


def test_no_noise_and_no_clipping_is_the_gradient_of_the_big_batch(make_task):
    run = make_task("example_local", "client_batch_size=null", "privacy.clip_norm=1e9")
    run = with_noise(run, 0.0)
    positions = np.concatenate(
        [
            run.partition.lookup(np.full(n, c), np.arange(n))
            for c, n in zip(CLIENTS, run.privacy.terms.sizes[CLIENTS], strict=True)
        ]
    )
    model = run.new_model()
    model.loss_and_gradient(run.loss, run.train_x[positions], run.train_y[positions])
    mean = sum_of(run, CLIENTS, clip_norm=1e9) / len(positions)
    assert (mean - model.grads).norm() < 1e-5 * model.grads.norm()


def test_local_steps_without_noise_are_torch_sgd(make_task):
    run = make_task(
        "example_local",
        "client_work=local_sgd",
        "client_work.epochs=3",
        "client_work.lr=0.1",
        "client_batch_size=null",
        "privacy.clip_norm=1e9",
    )
    run = with_noise(run, 0.0)
    assert run.privacy.steps(run.controller.phases[0]) == 3
    size = int(run.privacy.terms.sizes[0])
    index = run.partition.lookup(np.zeros(size, np.int64), np.arange(size))
    model = run.new_model()
    start = model.params.clone()
    optimizer = torch.optim.SGD(model.module.parameters(), lr=0.1)
    for _ in range(3):
        optimizer.zero_grad(set_to_none=False)
        nn.functional.cross_entropy(model.module(run.train_x[index]), run.train_y[index]).backward()
        optimizer.step()
    update = sum_of(run, [0], params=start.clone(), clip_norm=1e9) / size
    assert (update - (start - model.params)).norm() < 1e-5 * update.norm()


def test_every_local_step_has_noise_of_its_own(make_task):
    run = make_task(
        "example_local",
        "client_work=local_sgd",
        "client_work.epochs=null",
        "client_work.steps=4",
        "client_work.lr=0.01",
        "model.width=64",
    )
    size, q = int(run.privacy.terms.sizes[0]), run.privacy.terms.sample_rate(run.controller.phases[0])
    noise = noise_of(run, 1000.0, clients=[0]) / size  # drowns what the steps learn from each other
    expected = 0.01 * 4**0.5 * 1000.0 / (q * size)
    assert np.std(noise.numpy()) == pytest.approx(expected, rel=0.03)


def test_an_empty_batch_is_pure_noise(make_task):
    run = make_task("example_local", "model.width=64")
    for round_ in range(200):
        if not len(sample_examples(run, run.privacy, run.controller.phases[0], 0, _key(run, round_))):
            noise = sum_of(run, [0], round_=round_).numpy() / deviation(run)
            assert 1e-6 < stats.chi2.sf(float(noise @ noise), len(noise)) < 1 - 1e-6
            return
    pytest.fail("no empty batch in 200 rounds")


def _key(run, round_):
    return round_, fingerprint(run.new_model().params), 0


WAYS = ["fused", "vmap", "ghost", "loop"]


@pytest.mark.filterwarnings("ignore:Full backward hook is firing:UserWarning")  # Opacus's, on a first layer
@pytest.mark.parametrize("clipping", ["flat", "per_layer"])
@pytest.mark.parametrize("model", ["mlp", "cnn", "logistic", "resnet18"])
def test_all_ways_to_clip_agree_with_opacus_hooks(make_task, model, clipping):
    sizes = {"cnn": ["model.channels=4", "model.hidden=8"], "resnet18": ["model.width=8"]}.get(model, [])
    assert_all_ways_agree(make_task, f"model={model}", *sizes, clipping=clipping)


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore:Full backward hook is firing:UserWarning")  # Opacus's, on a first layer
@pytest.mark.parametrize("clipping", ["flat", "per_layer"])
@pytest.mark.parametrize(("model", "kind"), [("gpt", "causal"), ("bert", "masked")])
def test_a_sequence_is_an_example_of_a_language_model(make_task, model, kind, clipping):
    text = ("dataset=shakespeare_roles", f"dataset.task={kind}", "dataset.min_sequences=300", "dataset.context=8")
    sizes = ("model.layers=2", "model.heads=2", "model.width=8")
    assert_all_ways_agree(make_task, f"model={model}", *text, *sizes, clipping=clipping)


def assert_all_ways_agree(make_task, *overrides, clipping):
    fixed = (f"privacy.clipping={clipping}", "channels_last=false", "executor=loop")
    run = make_task("example_local", *overrides, *fixed)
    torch.manual_seed(0)
    index, params = np.arange(30), run.new_model().params.normal_(std=0.1)
    norms = _opacus_norms(run, params, index)  # (L, n)
    clip = Clip(float(norms.square().sum(dim=0).sqrt().median()), clipping == "per_layer")
    expected = _clip_by_hand(run, params, index, clip)
    for name in WAYS:
        if name == "ghost" and clipping == "per_layer":
            continue
        got = EXECUTORS[name](example_job(run, params, index, clip))
        assert (got.update_sum - expected).norm() < 1e-4 * expected.norm(), name
    assert torch.allclose(norms.square().sum(dim=0).sqrt(), _own_norms(run, params, index), rtol=1e-4)


def _opacus_norms(run, params, index):
    from opacus.grad_sample import GradSampleModule

    model = run.new_model()
    model.params.copy_(params)
    hooked = GradSampleModule(model.module, loss_reduction="sum")
    run.loss(hooked(run.train_x[index]), run.train_y[index], reduction="none").sum().backward()
    rows = torch.cat([p.grad_sample.flatten(1) for p in model.trainable], dim=1)
    hooked.to_standard_module()
    return model.layer_sq_norms(rows.detach()).sqrt()


def _own_norms(run, params, index):
    squares = EXECUTORS["fused"](example_job(run, params, index, Clip(float("inf")))).sq_norms
    return torch.from_numpy(squares).sqrt().float()


def _clip_by_hand(run, params, index, clip):
    model = run.new_model()
    model.params.copy_(params)
    total = torch.zeros(len(params), dtype=torch.float64)
    for i in index:
        model.loss_and_gradient(run.loss, run.train_x[i : i + 1], run.train_y[i : i + 1])
        layers = model.grads.double().split(model.layer_sizes) if clip.per_layer else [model.grads.double()]
        limit = clip.norm / len(layers) ** 0.5
        total += torch.cat([layer * min(1.0, limit / max(float(layer.norm()), 1e-30)) for layer in layers])
    return total


def test_chunks_do_not_matter(make_task):
    run = with_noise(make_task("example_local", "client_batch_size=null"), 0.0)
    whole = sum_of(run, CLIENTS, clip_norm=0.5)
    for limit in (1, 2e4, 1e6):
        cut = sum_of(replace(run, memory_bytes=limit), CLIENTS, clip_norm=0.5)
        assert (cut - whole).norm() < 1e-4 * whole.norm()


@pytest.mark.parametrize("outlier", [0.0, 1.0, 1e4, 1e30, float("nan"), float("inf")])
@pytest.mark.parametrize("unit", ["example", "client"])
def test_one_unit_moves_the_sum_by_no_more_than_the_clip_norm(make_task, unit, outlier):
    mechanism = "example_local" if unit == "example" else "client_central"
    run = with_noise(make_task(mechanism, "client_batch_size=null"), 0.0)
    clip_norm = 0.3
    first = run.partition.lookup(np.zeros(1, np.int64), np.zeros(1, np.int64))
    changed = run.train_x.clone()
    changed[first] = outlier * torch.sign(torch.randn(changed[first].shape, generator=torch.Generator().manual_seed(0)))
    one = contribution(run, CLIENTS, clip_norm=clip_norm)
    two = contribution(with_data(run, changed, run.train_y), CLIENTS, clip_norm=clip_norm)
    moved = (one.update_sum - two.update_sum).double().norm()
    assert two.update_sum.isfinite().all()
    assert moved <= 2 * clip_norm * (1 + 1e-4)  # replaced: one taken away and one added
    assert abs(one.extra_sums - two.extra_sums).max() <= clip_norm**2 * (1 + 1e-4)
    if not np.isfinite(outlier) and unit == "example":  # taken away alone
        assert moved <= clip_norm * (1 + 1e-4)


LOCAL = ("client_work=local_sgd", "client_work.epochs=null", "client_work.steps=1", "client_work.lr=0.5")


@pytest.mark.parametrize("kind", [("client_central",), ("example_local",), ("example_local", *LOCAL)], ids=len)
def test_a_contribution_that_is_too_long_has_just_the_clip_norm(make_task, kind):
    run = make_task(*kind, "client_batch_size=null")
    size = int(run.privacy.terms.sizes[0])
    own = run.partition.lookup(np.zeros(size, np.int64), np.arange(size))
    run.train_x[own], run.train_y[own] = run.train_x[own[0]].clone(), run.train_y[own[0]].clone()  # all point one way
    run = with_noise(run, 0.0)
    units = 1 if kind[0] == "client_central" else size
    weight = 0.5 if len(kind) > 1 else 1.0  # learning rate, over size and then times size
    whole = float(sum_of(run, [0], clip_norm=1e9).norm())
    for share in (0.1, 0.5, 0.9):
        clip_norm = share * whole / units / weight
        assert float(sum_of(run, [0], clip_norm=clip_norm).norm()) == pytest.approx(share * whole, rel=1e-4)


def test_a_reply_differs_in_the_noised_sums_only(make_task):
    run = make_task("example_local")
    changed = with_data(run, run.train_x * 3, run.train_y)
    one, two = (contribution(r, CLIENTS) for r in (run, changed))
    assert np.array_equal(one.clients, two.clients) and one.executor == two.executor
    assert one.update_sum.shape == two.update_sum.shape and one.extra_sums.shape == two.extra_sums.shape == (1,)


@pytest.mark.parametrize("mechanism", ["client_central", "example_local"])
def test_what_is_not_paid_for_does_not_travel(make_task, mechanism):
    with_squares = make_task(mechanism)
    without = make_task(mechanism, "privacy.measure_noise_scale=false", folder="other")
    for sigma in (1.0, 0.0):
        assert contribution(with_noise(with_squares, sigma), CLIENTS).extra_sums.shape == (1,)
        assert contribution(with_noise(without, sigma), CLIENTS).extra_sums.shape == (0,)


def test_client_level_sums_count_who_is_within_the_clip_norm(make_task):
    run = make_task("client_central", "privacy.clip_quantile=0.5", "cohort_size=20", "client_batch_size=null")
    lengths = np.array([float(sum_of(run, [c], clip_norm=1e9).norm()) for c in range(10)])
    middle = float(np.sort(lengths)[3:5].mean())  # four of ten are within
    reply = contribution(run, np.arange(10), clip_norm=middle)
    squares, centred = reply.extra_sums.tolist()
    assert centred == 4 - 5
    assert squares == pytest.approx(float((np.minimum(lengths, middle) ** 2).sum()), rel=1e-4)


@pytest.mark.parametrize("executor", ["fused", "ghost", "vmap", "loop"])
def test_example_level_sums_count_who_is_within_the_clip_norm(make_task, executor):
    everyone = ("client_batch_size=null", "model=logistic", "privacy.clip_quantile=0.5")
    run = with_noise(make_task("example_local", *everyone), 0.0)
    own = run.partition.lookup(np.full(10, 3), np.arange(10))
    x = run.train_x.clone()
    x[own[0]], x[own[1]] = torch.inf, 0.0  # one has no finite gradient, one has the bias's alone
    run, size = with_data(run, x, run.train_y), int(run.privacy.terms.sizes[3])
    params, length = torch.zeros_like(run.node_model.params), []
    for place in range(size):
        one = run.partition.lookup(np.array([3]), np.array([place]))
        length.append((0.9 * (float(run.train_x[one].square().sum()) + 1)) ** 0.5)  # p - y at p = 1/10 for all
    middle = float(np.sort(length)[size // 2 - 1 : size // 2 + 1].mean())
    reply = contribution(run, [3], params=params, clip_norm=middle, executor=executor)
    assert reply.extra_sums[-1] == size // 2 - size / 2


def test_an_executor_with_wrong_norms_is_found_before_it_is_used(make_task, monkeypatch):
    run = make_task("example_local")
    right = EXECUTORS["fused"]

    def wrong(job):
        result = right(job)
        return replace(result, update_sum=result.update_sum * 1.05)

    monkeypatch.setitem(EXECUTORS, "fused", wrong)
    run = replace(run, executors=Executors())
    with pytest.raises(RunFailedError, match="executor=fused cannot run this: its sum of updates differs .* by 5 %"):
        contribution(run, CLIENTS)


def test_a_plan_for_another_cohort_size_has_its_own_noise(make_task):
    run = make_task("example_local", "privacy.noise_schedule=proportional", "model.width=64")
    plain = plan_of(run, [0])
    small = noise_of(run, 1.0, clients=[0])
    doubled = replace(plain, cohort_size=2 * plain.cohort_size)
    runs = [with_noise(run, s) for s in (1.0, 0.0)]
    large = (
        train_private(doubled, runs[0], runs[0].privacy).update_sum
        - train_private(doubled, runs[1], runs[1].privacy).update_sum
    )
    assert np.std(large.numpy()) == pytest.approx(2 * np.std(small.numpy()), rel=1e-4)
