import numpy as np
import pytest
import torch
from scipy import stats

from fedbatch.core.errors import ConfigError
from fedbatch.privacy import randomness
from fedbatch.privacy.randomness import Randomness, fingerprint, secret_of
from tests.virtual_gpu import VirtualGpu

KEY = b"k" * 32


@pytest.mark.parametrize("generator", ["philox", "chacha20"])
def test_draws_have_the_right_law(generator):
    source = Randomness(KEY, "run", generator)
    normal, uniform = source.normal(100_001, "noise", 1).numpy(), source.uniform(100_000, "sample", 1)
    assert len(normal) == 100_001 and normal.dtype == np.float64
    assert stats.kstest(normal, "norm").pvalue > 1e-6 and stats.kstest(uniform, "uniform").pvalue > 1e-6
    assert uniform.min() >= 0 and uniform.max() < 1


@pytest.mark.parametrize("generator", ["philox", "chacha20"])
def test_same_key_same_draw_and_any_difference_another(generator):
    def draw(secret=KEY, run="run", what=("noise", 3, 1, "hash")):
        return Randomness(secret, run, generator).normal(1000, *what).numpy()

    first = draw()
    assert (first == draw()).all()
    others = [
        draw(secret=b"l" * 32),
        draw(run="other"),
        *(draw(what=("noise", *w)) for w in [(4, 1, "hash"), (3, 2, "hash"), (3, 1, "hush"), (31, "hash")]),
    ]
    for other in others:
        assert abs(np.corrcoef(first, other)[0, 1]) < 6 / 1000**0.5


def test_a_secret_file_is_made_once_for_its_owner_only(tmp_path, caplog):
    path = tmp_path / "deep" / "secret"
    secret = secret_of(str(path), 0)
    assert len(secret) == 32 and secret_of(str(path), 1) == secret and path.stat().st_mode & 0o077 == 0
    assert not caplog.text
    path.chmod(0o640)
    assert secret_of(str(path), 0) == secret
    assert f"chmod 600 {path}" in caplog.text and "privacy.secret_file: " in caplog.text
    path.write_bytes(b"short")
    with pytest.raises(ConfigError, match=r"privacy.secret_file must hold 32 bytes \(got 5\)"):
        secret_of(str(path), 0)
    assert secret_of(None, 1) == secret_of(None, 1) != secret_of(None, 2)


def test_an_unknown_generator_is_refused():
    with pytest.raises(ConfigError, match="privacy.generator must be one of philox, chacha20"):
        Randomness(KEY, "run", "mersenne")


def test_a_fingerprint_sees_every_bit():
    params = torch.zeros(10)
    before = fingerprint(params)
    params[3] = 1e-45
    assert fingerprint(params) != before


@pytest.fixture
def on_gpu(monkeypatch):
    """Draws on a GPU that makes its own from few on, (source, count, what) -> array of the host."""
    monkeypatch.setattr(randomness, "ON_DEVICE", 1000)

    def draw(source, count, *what):
        with VirtualGpu().active() as gpu:
            draws = source.normal(count, *what, device=torch.device("cuda"))
            assert draws.is_cuda == (count >= 1000)
            draws = draws.to("cuda", non_blocking=True)
            assert not gpu.waits
            return draws.cpu().numpy()

    return draw


@pytest.mark.parametrize("count", [999, 1000, 1001, 4999, 10_000])
def test_a_gpu_draws_what_chacha20_draws_on_a_cpu(on_gpu, count):
    source = Randomness(KEY, "run", "chacha20")
    np.testing.assert_allclose(on_gpu(source, count, "noise"), source.normal(count, "noise").numpy(), rtol=1e-12)


def test_few_draws_are_the_same_on_every_device(on_gpu):
    source = Randomness(KEY, "run", "philox")
    assert np.array_equal(on_gpu(source, 500, "noise"), source.normal(500, "noise").numpy())


@pytest.mark.parametrize("generator", ["philox", "chacha20"])
def test_draws_of_a_gpu_have_the_right_law_and_follow_from_all_of_the_key(on_gpu, generator):
    def draw(secret=KEY, run="run", what=("noise", 3, 1, "hash")):
        return on_gpu(Randomness(secret, run, generator), 20_001, *what)

    first = draw()
    assert stats.kstest(first, "norm").pvalue > 1e-6 and len(np.unique(first)) == 20_001
    assert np.array_equal(first, draw())
    changed = [(4, 1, "hash"), (3, 2, "hash"), (3, 1, "hush"), (31, "hash")]
    others = [draw(secret=b"l" * 32), draw(run="other"), *(draw(what=("noise", *w)) for w in changed)]
    others += [np.roll(first, by) for by in (1, 10_001, 1000)]  # coordinates and blocks are independent too
    for other in others:
        assert abs(np.corrcoef(first, other)[0, 1]) < 6 / 20_001**0.5


def test_draws_of_a_gpu_tell_nothing_of_those_that_philox_makes_of_the_key(on_gpu):
    """The stream of one must not begin with the key of the other."""
    source = Randomness(KEY, "run", "philox")
    chacha20 = Randomness(KEY, "run", "chacha20").normal(2000, "noise").numpy()
    there = on_gpu(source, 2000, "noise")
    for other in (source.normal(2000, "noise").numpy(), chacha20):
        assert abs(np.corrcoef(there, other)[0, 1]) < 6 / 2000**0.5
