from dataclasses import replace
from pathlib import Path

from fedbatch.results.store import RunStore
from fedbatch.results.sweep import finished_before, placed


def left(config, status, checkpoint=True, ledger=False):
    """A folder in which a run of this config has come so far."""
    store = RunStore(Path(config.run_dir), config)
    store._write_summary({"status": status})
    if checkpoint:
        (store.folder / "checkpoints").mkdir()
        (store.folder / "checkpoints" / "round-00000001.ckpt").touch()
    if ledger:
        (store.folder / "ledger.jsonl").touch()


def test_where_a_run_of_a_sweep_goes(make_config):
    config = make_config("seed=0", folder="sweep/0")
    other, folder = make_config("seed=1", folder="sweep/0"), Path(config.run_dir)
    assert placed(config) == config and finished_before(config) is None
    left(config, "interrupted")
    assert placed(config) == replace(config, resume=str(folder))
    own = f"{folder}-{other.identity()[:8]}"
    assert placed(other) == replace(other, run_dir=own)
    left(replace(other, run_dir=own), "failed")
    assert placed(other) == replace(other, run_dir=own, resume=own)
    again = replace(config, overwrite=True)
    assert placed(again) == again


def test_what_broke_off_before_a_checkpoint_starts_over_unless_it_has_spent_privacy(make_config):
    config = make_config(folder="sweep/0")
    left(config, "failed", checkpoint=False)
    assert placed(config) == replace(config, overwrite=True)
    (Path(config.run_dir) / "ledger.jsonl").touch()
    assert placed(config) == config  # and is refused


def test_what_has_finished_is_found_under_whatever_number_but_not_when_it_is_to_be_overwritten(make_config):
    config = make_config(folder="sweep/3")
    left(make_config(folder="sweep/0"), "finished")
    assert finished_before(config) == Path(config.run_dir).parent / "0"
    assert finished_before(replace(config, overwrite=True)) is None
    assert finished_before(replace(config, seed=5)) is None
    (Path(config.run_dir).parent / "0" / "config.yaml").write_text("{")
    assert finished_before(config) is None
