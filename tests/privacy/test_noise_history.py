"""The next round's noise from that of earlier ones, and how it is kept."""

import io
from dataclasses import replace

import numpy as np
import pytest
import torch

from fedbatch.core.errors import ConfigError
from fedbatch.privacy.banded import coefficients
from fedbatch.privacy.noise_history import UNCORRELATED, NoiseHistory
from fedbatch.privacy.randomness import Randomness
from fedbatch.server.state import ServerState
from tests.privacy.test_banded import dense
from tests.privacy.test_private_temperature import start

SIZE, ROUNDS, BANDS = 500, 12, 4


def drawn(seed=0):
    return torch.from_numpy(np.random.default_rng(seed).normal(size=(ROUNDS, SIZE)))


def rolled(draws, history=None):
    history, noises = history or NoiseHistory(coefficients(BANDS, ROUNDS)), []
    for fresh in draws:
        noise, history = history.next(fresh.clone())
        noises.append(noise)
    return torch.stack(noises), history


def test_the_strategy_times_the_noise_is_what_was_drawn():
    noises, history = rolled(drawn())
    whole = dense(history.coefficients, ROUNDS) @ noises.numpy()
    assert np.abs(whole - drawn().numpy()).max() < 1e-6  # earlier noise is kept in float32
    assert [len(history.noises), history.noises[0].dtype] == [BANDS - 1, torch.float32]
    assert torch.equal(torch.stack(history.noises), noises[1 - BANDS :].flip(0).float())


def test_without_bands_the_draws_are_the_noise():
    noise, history = UNCORRELATED.next(draws := drawn()[0])
    assert noise is draws and history is UNCORRELATED and UNCORRELATED.variance(7) == 1.0


def test_a_history_goes_on_where_it_was_opened():
    secret = Randomness(b"s" * 32, "run")
    whole, _ = rolled(drawn())
    first, history = rolled(drawn()[:5])
    opened = history.sealed(secret).opened(secret, torch.zeros(SIZE))
    assert not opened.seal and opened.coefficients == history.coefficients
    second, _ = rolled(drawn()[5:], opened)
    assert torch.equal(torch.cat([first, second]), whole)


def test_sealed_noise_cannot_be_read():
    secret = Randomness(b"s" * 32, "run")
    _, history = rolled(drawn())
    sealed = history.sealed(secret)
    assert sealed.seal == history.sealed(secret).seal
    hidden = sealed.noises[0].numpy()
    clear = torch.stack(history.noises).numpy().view(np.uint8).ravel()
    assert len(hidden) == len(clear) and abs(np.mean(hidden == clear) - 1 / 256) < 0.01
    with pytest.raises(ConfigError, match=r"privacy\.secret_file; give the file with which the run began"):
        sealed.opened(Randomness(b"t" * 32, "run"), torch.zeros(SIZE))
    _, other = rolled(drawn(1))
    pads = [
        h.sealed(secret).noises[0].numpy() ^ torch.stack(h.noises).numpy().view(np.uint8).ravel()
        for h in (history, other)
    ]
    assert np.mean(pads[0] == pads[1]) < 0.01, "no two histories are hidden in the same way"


def test_a_history_is_named_by_a_keyed_digest_of_its_last_noise():
    secret, other = Randomness(b"s" * 32, "run"), Randomness(b"t" * 32, "run")
    _, history = rolled(drawn())
    assert UNCORRELATED.name(secret) == "" and history.name(secret) == history.name(secret) != history.name(other)
    assert rolled(drawn(1))[1].name(secret) != history.name(secret)


def test_a_state_of_before_has_no_history(make_task):
    _, state = start(make_task("client_central"))
    values = torch.load(io.BytesIO(state.to_bytes()), weights_only=True)
    del values["noise_history"]
    buffer = io.BytesIO()
    torch.save(values, buffer)
    assert ServerState.from_bytes(buffer.getvalue()).noise_history == UNCORRELATED
    kept = replace(state, noise_history=rolled(drawn())[1].sealed(Randomness(b"s" * 32, "run")))
    again = ServerState.from_bytes(kept.to_bytes()).noise_history
    assert again.coefficients == kept.noise_history.coefficients and again.seal == kept.noise_history.seal
    assert torch.equal(again.noises[0], kept.noise_history.noises[0])
