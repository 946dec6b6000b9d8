"""Each stage against a line of NumPy, and its mean over keys."""

import numpy as np
import pytest
import torch

from fedbatch.compression import QSGD, Compression, Half, PowerSGD, RandK, Sign, TopK, half
from fedbatch.compression.packing import pack, unpack
from fedbatch.core.random import key as derived
from fedbatch.models.flat import FlatModel


def through(stage, vector, key=0):
    chain = Compression({"a": stage})
    return chain.decode(chain.encode(vector, key), len(vector), vector.dtype, key)


def gaussian(n, dtype=torch.float32):
    return torch.from_numpy(np.random.default_rng(0).normal(size=n)).to(dtype)


def assert_mean(stage, vector, keys=1500, most=4.5):
    """Numbers that are always the same must be right; the others have a z over keys."""
    found = torch.stack([through(stage, vector, key) for key in range(keys)]).double()
    spread = found.std(dim=0) / keys**0.5
    gap = (found.mean(dim=0) - vector.double()).abs()
    few = spread < 1e-3 * spread.max()  # where what is unlikely was seen hardly ever
    assert (gap[~few] / spread[~few]).max() < most
    assert (gap[few] <= 1e-3 * vector.abs().max()).all()


def test_top_k_is_a_line_of_numpy():
    v = gaussian(40).numpy()
    largest = np.where(np.isin(np.arange(40), np.argsort(-np.abs(v))[:8]), v, 0)
    np.testing.assert_array_equal(through(TopK(0.2), torch.from_numpy(v)).numpy(), largest)


@pytest.mark.parametrize("places", [[3, 2], [2, 2], [-1, 2], [2, 40], [0, 2**31 - 1]])
def test_places_that_nobody_sends_are_refused(places):
    side = {"places": torch.tensor(places, dtype=torch.int32)}
    with pytest.raises(ValueError, match=r"must ascend and be in 0 .. 39"):
        TopK(0.05).decode(torch.ones(2), side, 40, 0)


def test_rand_k_has_other_places_for_every_key_and_no_bias():
    v = gaussian(40)
    sent = torch.stack([through(RandK(0.25), v, key) for key in range(400)])
    assert ((sent != 0).sum(dim=1) == 10).all()
    places = (sent != 0).double().mean(dim=0)
    assert (places - 0.25).abs().max() < 4.5 * (0.25 * 0.75 / 400) ** 0.5
    torch.testing.assert_close(sent[0][sent[0] != 0], 4 * v[sent[0] != 0])
    torch.testing.assert_close(through(RandK(0.25, False), v), sent[0] / 4)
    assert_mean(RandK(0.25), v)


@pytest.mark.parametrize(("levels", "bucket", "bits"), [(1, None, 2), (3, 16, 3), (7, 16, 4), (8, 40, 5), (127, 7, 8)])
def test_qsgd_has_levels_of_the_length_and_no_bias(levels, bucket, bits):
    stage, v = QSGD(levels, bucket), gaussian(40)
    size = bucket or 40
    lengths = np.repeat([np.linalg.norm(v.numpy()[i : i + size]) for i in range(0, 40, size)], size)[:40]
    level = through(stage, v).numpy() / lengths * levels
    np.testing.assert_allclose(level, np.round(level), atol=1e-4)
    assert (np.abs(level - v.numpy() / lengths * levels) < 1 + 1e-4).all() and stage.bits == bits
    assert Compression({"a": stage}).num_bytes(40, torch.float32) == -(-40 * bits // 8) + 4 * -(-40 // size)
    assert_mean(stage, v)


def test_qsgd_of_nothing_is_nothing_and_of_one_number_that_number():
    assert not through(QSGD(3), torch.zeros(9)).any()
    torch.testing.assert_close(through(QSGD(3), torch.tensor([-2.5])), torch.tensor([-2.5]))


def test_levels_beyond_the_last_are_refused():
    codes = pack(torch.tensor([0, 6, 7]), 3)
    with pytest.raises(ValueError, match=r"levels of QSGD must be in -3 .. 3"):
        QSGD(3).decode(torch.ones(1), {"levels": codes}, 3, 0)
    with pytest.raises(ValueError, match="bits after the last packed number must be zero"):
        unpack(torch.tensor([255], dtype=torch.uint8), 3, 2)


@pytest.mark.parametrize("bits", range(1, 17))
def test_packed_numbers_come_back(bits):
    codes = torch.from_numpy(np.random.default_rng(bits).integers(2**bits, size=37))
    assert torch.equal(unpack(pack(codes, bits), bits, 37), codes)


def test_sign_is_a_line_of_numpy():
    v = gaussian(13).numpy()
    np.testing.assert_allclose(through(Sign(), torch.from_numpy(v)).numpy(), np.abs(v).mean() * np.sign(v), rtol=1e-6)
    np.testing.assert_array_equal(through(Sign(True), torch.from_numpy(v)).numpy(), np.sign(v))
    assert Sign(True).aggregated(torch.tensor([0.2, -3.0, 0.0])).tolist() == [1.0, -1.0, 0.0]
    assert Compression({"a": Sign(True)}).num_bytes(13, torch.float32) == 2


@pytest.mark.parametrize("name", ["float16", "bfloat16"])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_half_gives_one_of_two_neighbours_and_no_bias(name, dtype):
    v = torch.cat([gaussian(20, dtype), gaussian(20, dtype) * 1e-7, torch.tensor([0.0, 1.0, -65504.0, 6e-8]).to(dtype)])
    kind = getattr(torch, name)
    up = torch.nextafter(v.to(kind), torch.tensor(float("inf")).to(kind)).to(dtype)
    down = torch.nextafter(v.to(kind), torch.tensor(float("-inf")).to(kind)).to(dtype)
    nearest = v.to(kind).to(dtype)
    sent = through(Half(name), v, 5)
    assert ((sent == nearest) | (sent == up) | (sent == down)).all() and ((sent - v).abs() <= (up - down)).all()
    exact = nearest == v
    assert torch.equal(sent[exact], v[exact]) and exact.any()
    mean = torch.stack([through(Half(name), v, key) for key in range(2000)]).double().mean(dim=0)
    unit = torch.maximum(up - nearest, nearest - down).double().nan_to_num(posinf=64.0)
    assert ((mean - v.double()).abs() <= 4.5 * unit / 2 / 2000**0.5 + 1e-30).all()


def test_half_says_what_it_cannot_hold(caplog):
    half._tell_of_overflow.cache_clear()
    with pytest.raises(ValueError, match="not finite"):
        through(Half("float16"), torch.tensor([1.0, 7e4]))
    assert "beyond 65504" in caplog.text and "dtype=bfloat16" in caplog.text
    assert through(Half("bfloat16"), torch.tensor([7e4])).item() == pytest.approx(7e4, rel=0.01)


def model():
    layers = torch.nn.Sequential(torch.nn.Conv2d(3, 8, 3), torch.nn.Flatten(), torch.nn.Linear(32, 20))
    return FlatModel(layers, channels_last=True)


@pytest.mark.parametrize("rank", [1, 2, 4])
def test_power_sgd_of_a_matrix_of_that_rank_is_exact(rank):
    flat, rng = model(), np.random.default_rng(rank)

    def low(rows, columns):
        return torch.from_numpy(rng.normal(size=(rows, rank)) @ rng.normal(size=(rank, columns))).float()

    vector = flat.join([low(8, 27).view(8, 3, 3, 3), torch.randn(8), low(20, 32), torch.randn(20)])
    stage = PowerSGD(rank).on_model(flat)
    torch.testing.assert_close(through(stage, vector), vector, rtol=1e-4, atol=1e-4)
    assert stage.length(len(vector)) == rank * (8 + 27 + 20 + 32) + 28 < len(vector)


def test_power_sgd_projects_on_a_power_iteration():
    """P P^T M, with P from NumPy's QR of M S, and S by the key."""
    layer = FlatModel(torch.nn.Linear(12, 9, bias=False))
    matrix = gaussian(108).view(9, 12)
    draws = np.random.Generator(np.random.Philox(key=derived(7, "stage", 0))).standard_normal((12, 2))
    basis = np.linalg.qr(matrix.numpy() @ draws)[0]
    found = through(PowerSGD(2).on_model(layer), matrix.flatten(), 7).view(9, 12)
    np.testing.assert_allclose(found.numpy(), basis @ basis.T @ matrix.numpy(), atol=1e-5)


def test_power_sgd_leaves_what_would_not_be_smaller():
    stage, vector = PowerSGD(13).on_model(model()), gaussian(len(model().params))
    assert stage.length(len(vector)) == len(vector) and torch.equal(through(stage, vector), vector)


@pytest.mark.parametrize(
    ("stage", "arguments"),
    [(TopK, [0.0]), (TopK, [1.5]), (RandK, [-1]), (QSGD, [0]), (QSGD, [7, 0]), (PowerSGD, [0]), (Half, ["float8"])],
)
def test_arguments_out_of_range_are_refused(stage, arguments):
    with pytest.raises(ValueError, match="compression: "):
        stage(*arguments)
