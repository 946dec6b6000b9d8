"""A clip norm that follows a quantile of lengths, in every mechanism: where it goes, what it costs, what is refused."""

import numpy as np
import pytest

from fedbatch.cli import app
from fedbatch.config.schema import identity_of
from fedbatch.setup import task
from tests.conftest import run

EXAMPLES = {
    "example_local": (),
    "example_central": (),
    "example_distributed": ("privacy.min_clients=4",),
    "integers": ("privacy.min_clients=4", "privacy.quantum=0.01"),
}
SETTINGS = ("controller=fixed", "executor=fused", "privacy.target_epsilon=null", "privacy.noise_multiplier=0.5")
NOISES = [0.3, 1.0, 20.0]


@pytest.mark.parametrize("factor", [4.0, 0.25])
@pytest.mark.parametrize("kind", EXAMPLES)
def test_the_clip_norm_goes_to_the_quantile(make_config, kind, factor):
    """At zero weights and a learning rate of nothing, an example's gradient is (p - y) x with p = 1/10 for all."""
    frozen = ("model=logistic", "server_optimizer.lr=1e-9", "evaluate_every_rounds=0", "rounds=60")
    everyone = ("cohort_size=20", "client_batch_size=16", "privacy.clip_quantile=0.3", "privacy.clip_rate=0.3")
    mechanism = f"privacy={'example_distributed' if kind == 'integers' else kind}"
    zero = ("model._target_=tests.privacy.zero_model.logistic",)
    start = f"privacy.clip_norm={8 * factor}"
    config = make_config(mechanism, *EXAMPLES[kind], *SETTINGS, *frozen, *everyone, *zero, start)
    loaded = task.load(config.to_json())
    lengths = np.sqrt(0.9 * (loaded.train_x.double().flatten(1).square().sum(dim=1).numpy() + 1))
    rows, _, _ = run(config)
    found = np.exp(np.mean(np.log([row["clip_norm"] for row in rows[30:]])))
    assert abs((lengths <= found).mean() - 0.3) < 0.08
    assert rows[0]["clip_norm"] == 8 * factor


@pytest.mark.parametrize("noise", NOISES)
@pytest.mark.parametrize("name", ["client_central", "example_local", "example_central", "example_distributed"])
def test_the_default_noise_of_the_count_costs_little(make_task, name, noise):
    shares = ("privacy.min_clients=4",) if name == "example_distributed" else ()
    follows = ("privacy.clip_quantile=0.5", "privacy.measure_noise_scale=false", f"privacy.noise_multiplier={noise}")
    loaded = make_task(name, "cohort_size=8", "client_batch_size=4", *shares, *follows)
    phase = loaded.controller.phases[0]
    assert 1 < loaded.privacy.update_noise(phase) / noise <= (1 / (1 - 1 / 16)) ** 0.5 * (1 + 1e-9)


def test_with_a_large_cohort_the_count_has_the_noise_that_it_had(make_task):
    loaded = make_task("client_central", "cohort_size=20", "privacy.noise_multiplier=0.4", "privacy.clip_quantile=0.5")
    phase = loaded.controller.phases[0]
    assert loaded.privacy.release_noise(phase, 1.0, 1.0, 1).count == 20 / 20


def test_at_local_level_a_release_is_one_clients(make_task):
    loaded = make_task("example_local", "cohort_size=8", "client_batch_size=60", "privacy.clip_quantile=0.5")
    phase = loaded.controller.phases[0]
    assert loaded.privacy.terms.units_of_release(phase) == pytest.approx(60)
    assert loaded.privacy.release_noise(phase, 1.0, 8.0, 1).count == pytest.approx(60 / 20 * 8**0.5)


def test_runs_of_before_keep_their_draws(make_config):
    """Draws are keyed by the config without keys that are at the defaults which they have had since they came."""
    for name in ("example_local", "example_central", "example_distributed"):
        config = make_config(f"privacy={name}")
        values = {**vars(config), "noise_scale": {}}
        before = {k: v for k, v in config.privacy.items() if k not in ("clip_quantile", "clip_rate", "count_noise")}
        before = {k: v for k, v in before.items() if k not in ("quantum", "bits")}
        assert identity_of(values) == identity_of(values | {"privacy": before})
        assert identity_of(values) != identity_of(values | {"privacy": config.privacy | {"clip_quantile": 0.5}})
    client = make_config("privacy=client_central")
    values = {**vars(client), "noise_scale": {}}
    without = {k: v for k, v in client.privacy.items() if k != "clip_rate"}
    assert identity_of(values) != identity_of(values | {"privacy": without}), "it always had it"


@pytest.mark.parametrize(
    ("options", "line"),
    [
        (["client_work=local_sgd"], "privacy.clip_quantile: a client's local steps have one clip norm"),
        (["privacy.clipping=per_layer"], "set privacy.clipping=flat"),
        (["privacy.count_noise=0.1"], "privacy.count_noise (0.1 examples) must be above half the noise multiplier"),
        (["privacy.clip_quantile=1"], "privacy.clip_quantile must be in (0, 1)"),
    ],
)
def test_refusals_are_one_line(tmp_path, capsys, monkeypatch, options, line):
    small = ["dataset=digits", "population=20", "rounds=2", "model.width=8"]
    monkeypatch.setattr(
        "sys.argv", ["fedbatch", *small, "privacy=example_local", "privacy.clip_quantile=0.5", *options]
    )
    monkeypatch.chdir(tmp_path)
    with pytest.raises(SystemExit) as end:
        app.main()
    said = capsys.readouterr().err.strip().splitlines()
    assert end.value.code == 2 and len(said) == 1 and line in said[0]
