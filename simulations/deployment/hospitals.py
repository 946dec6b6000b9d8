"""One folder of data for each party, as if it had always lain there: tumours of scikit-learn's breast cancer set."""

from pathlib import Path

import polars as pl
from sklearn.datasets import load_breast_cancer

FEATURES = [f"m{index}" for index in range(30)]
TEST_ROWS = 113


def write_hospitals(folder: Path) -> tuple[Path, Path, Path]:
    """Folders of the server, which has data to test on, and of two hospitals with 228 patients each.

    Each holds ``train.csv`` and ``test.csv``: 30 measurements and a ``label``, malignant (0) or benign (1).
    """
    x, y = load_breast_cancer(return_X_y=True)
    rows = pl.DataFrame(x, schema=FEATURES).with_columns(label=pl.Series(y)).sample(fraction=1, shuffle=True, seed=0)
    test, train = rows[:TEST_ROWS], rows[TEST_ROWS:]
    half = len(train) // 2
    made = (folder / "server", folder / "hospital-0", folder / "hospital-1")
    for place, own in zip(made, (train, train[:half], train[half:]), strict=True):
        place.mkdir()
        own.write_csv(place / "train.csv")
        test.write_csv(place / "test.csv")
    return made
