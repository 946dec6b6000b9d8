"""Studies are scripts: their folder comes first on the path, as with `python simulations/NAME.py`."""

from pathlib import Path

import pytest

FOLDER = Path(__file__).parents[2] / "simulations"


@pytest.fixture
def simulations(monkeypatch):
    monkeypatch.syspath_prepend(str(FOLDER))
    return FOLDER
