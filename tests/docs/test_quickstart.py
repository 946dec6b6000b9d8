"""The notebook of the docs runs, and shows what it says."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

NOTEBOOK = Path(__file__).parents[2] / "docs" / "quickstart.ipynb"


@pytest.mark.slow
def test_quickstart_runs(tmp_path):
    copy = tmp_path / "quickstart.ipynb"
    code = "import sys, nbclient, nbformat; book = nbformat.read(sys.argv[1], 4); nbclient.execute(book); "
    code += "nbformat.write(book, sys.argv[2])"
    subprocess.run([sys.executable, "-c", code, str(NOTEBOOK), str(copy)], check=True, timeout=300)
    outputs = [out for cell in json.loads(copy.read_text())["cells"] for out in cell.get("outputs", [])]
    text = "".join("".join(out["data"].get("text/plain", "")) for out in outputs if "data" in out)
    assert "│ switch ┆ finished" in text and "│ small  ┆ finished" in text and "┆ large ┆" in text
    assert "(1.0, 162)" in text and "('rounds'," in text and "('bytes'," in text  # own model, advice
    assert any("image/png" in out.get("data", {}) for out in outputs)


def test_notebook_is_kept_without_outputs():
    cells = json.loads(NOTEBOOK.read_text())["cells"]
    assert not any(cell.get("outputs") for cell in cells)
