import os

import pytest


@pytest.fixture(autouse=True)
def _own_folders(tmp_path, monkeypatch):
    """No test reads or writes the user's caches, nor asks the network."""
    monkeypatch.setenv("FEDBATCH_CACHE", str(tmp_path / "cache"))
    monkeypatch.setenv("HF_HOME", str(tmp_path / "hf"))
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    monkeypatch.delenv("FEDBATCH_DATA", raising=False)


@pytest.fixture
def environment():
    """The environment of a subprocess: this one's, with the fixture's folders."""
    return {**os.environ, "OMP_NUM_THREADS": "1"}


@pytest.fixture(autouse=True)
def _quiet_datasets(tmp_path, monkeypatch):
    """`datasets` reads its cache folder when imported, maybe before this test."""
    import datasets

    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", tmp_path / "hf")
    monkeypatch.setattr(datasets.config, "HF_HUB_OFFLINE", True)
    datasets.disable_progress_bars()


@pytest.fixture
def load(tmp_path):
    """``load("a,y\n1,0\n...", input_column="a")``: a data set from text (csv), bytes (csv) or columns (Parquet)."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    from fedbatch.data.hub import hugging_face

    def from_content(content, **arguments):
        path = tmp_path / ("rows.parquet" if isinstance(content, dict) else "rows.csv")
        if isinstance(content, dict):
            pq.write_table(pa.table(content), path)
        else:
            path.write_bytes(content if isinstance(content, bytes) else content.encode())
        return hugging_face(str(path), **{"input_column": "a", "label_column": "y", **arguments})

    return from_content
