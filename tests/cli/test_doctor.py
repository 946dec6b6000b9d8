from importlib import metadata

import pytest
from packaging.requirements import Requirement
from rich.console import Console

from fedbatch.cli import doctor


@pytest.fixture
def declared(monkeypatch):
    """A package with a core requirement that is too old, a complete extra and one that lacks something."""
    wants = [
        "numpy>=999",
        'polars; extra == "good"',
        'no-such-package>=2; extra == "bad"',
        'fedbatch[good]; extra == "bad"',
    ]
    monkeypatch.setattr(metadata, "requires", lambda _: wants)
    extras = type("Metadata", (), {"get_all": lambda self, _: ["good", "bad"]})()
    monkeypatch.setattr(metadata, "metadata", lambda _: extras)


def test_extras_say_what_they_lack_and_how_to_get_it(declared):
    expected = "no-such-package missing; pip install 'fedbatch[bad]'"
    assert dict(doctor.extras()) == {"good": "complete", "bad": expected}
    found = dict(doctor.installed())
    assert found["numpy"] == f"{metadata.version('numpy')} is not >=999" and "polars" not in found


def test_data_sets_that_are_there_and_that_are_not(tmp_path, monkeypatch):
    (tmp_path / "dataset").mkdir()
    target = "_target_: fedbatch.data.fashion_mnist\n"
    (tmp_path / "dataset" / "away.yaml").write_text(target + f"folder: {tmp_path}\n")
    (tmp_path / "dataset" / "asks.yaml").write_text(target + "folder: ???\n")
    (tmp_path / "dataset" / "there.yaml").write_text("_target_: fedbatch.data.digits\n")
    monkeypatch.setattr(doctor, "config_dir", lambda: str(tmp_path))
    found = dict(doctor.datasets())
    assert found["there"] == "1,438 training and 359 test examples" and found["asks"] == "give dataset.folder"
    assert "no Fashion-MNIST in" in found["away"]


def test_a_requirement_may_be_met_by_a_build_of_ones_own():
    assert doctor.missing(Requirement(f"numpy<={metadata.version('numpy')}")) == ""


def test_an_extra_of_a_dependency_is_looked_into(monkeypatch):
    monkeypatch.setattr(metadata, "requires", lambda _: ["polars", 'no-such-package>=2; extra == "more"'])
    assert doctor.missing(Requirement("numpy[more]")) == "without no-such-package: missing"
    assert doctor.missing(Requirement("numpy[other]")) == doctor.missing(Requirement("numpy")) == ""


def test_devices_are_named():
    assert dict(doctor.devices())["cpu"].endswith("cores")


def test_all_of_it_is_shown_commands_whole(declared, monkeypatch):
    monkeypatch.setattr(doctor, "datasets", lambda: [("fashion_mini", "there")])
    console = Console(width=200)
    with console.capture() as text:
        for table in doctor.tables():
            console.print(table)
    for word in ("numpy", "cpu", "pip install 'fedbatch[bad]'", "fashion_mini"):
        assert word in text.get()
