import numpy as np
import pandas as pd
import pytest

from fedbatch.data.hub import hugging_face

N = 40
Y = [i % 2 for i in range(N)]
COLOURS = [("red", "green", "blue")[i % 3] for i in range(N)]


def test_categories_are_one_hot_and_fitted_on_training_alone(tmp_path):
    (tmp_path / "t").mkdir()
    pd.DataFrame({"c": COLOURS, "v": range(N), "y": Y}).to_parquet(tmp_path / "t/train.parquet")
    pd.DataFrame({"c": ["green", "pink"], "v": [100, 0], "y": [0, 1]}).to_parquet(tmp_path / "t/test.parquet")
    data = hugging_face(str(tmp_path / "t"), input_column=["c", "v"], label_column="y")
    expected = pd.get_dummies(pd.Series(COLOURS)).to_numpy(float)  # blue, green, red
    assert np.array_equal(data.train_x[:, :3], expected)
    assert data.test_x[:, :3].tolist() == [[0, 1, 0], [0, 0, 0]], "pink is in no training row"
    np.testing.assert_allclose(data.test_x[:, 3], (np.array([100, 0]) - 19.5) / np.arange(N).std(), rtol=1e-6)


def test_imputing_takes_the_training_median_and_says_where(tmp_path):
    (tmp_path / "t").mkdir()
    values = [None if i % 4 == 0 else float(i) for i in range(N)]
    colours = [None if i == 5 else colour for i, colour in enumerate(COLOURS)]
    pd.DataFrame({"v": values, "c": colours, "y": Y}).to_parquet(tmp_path / "t/train.parquet")
    pd.DataFrame({"v": [None, 4.0], "c": [None, "red"], "y": [0, 1]}).to_parquet(tmp_path / "t/test.parquet")
    data = hugging_face(str(tmp_path / "t"), input_column=["v", "c"], label_column="y", missing="impute")
    filled = pd.Series(values).fillna(pd.Series(values).median())
    np.testing.assert_allclose(data.train_x[:, 0], (filled - filled.mean()) / filled.std(ddof=0), atol=1e-6)
    assert data.train_x[:, 1].tolist() == [float(i % 4 == 0) for i in range(N)]
    assert data.test_x[:, 1:].tolist() == [[1, 0, 0, 1, 0], [0, 0, 0, 0, 1]]  # blue, green, missing, red


def test_constant_columns_tell_nothing(load):
    nearly = [0.1 + 0.2 if i % 2 else 0.3 for i in range(N)]  # one rounding apart
    data = load(
        {"a": [0.1] * N, "b": nearly, "c": [1e30] * N, "v": range(N), "y": Y}, input_column=["a", "b", "c", "v"]
    )
    assert not data.train_x[:, :3].any() and data.train_x[:, 3].std() == pytest.approx(1, abs=1e-6)


def test_a_test_value_out_of_proportion_is_refused(tmp_path):
    (tmp_path / "t").mkdir()
    pd.DataFrame({"v": [i * 1e-300 for i in range(N)], "y": Y}).to_parquet(tmp_path / "t/train.parquet")
    pd.DataFrame({"v": [0.0, 1.0], "y": [0, 1]}).to_parquet(tmp_path / "t/test.parquet")
    with pytest.raises(ValueError, match=r"v is too large beside the training values in test 1 of 2 rows \(1,"):
        hugging_face(str(tmp_path / "t"), input_column="v", label_column="y")


def test_free_text_among_other_columns_is_refused(load):
    with pytest.raises(ValueError, match=r"input_column=a,v: a holds 32 different texts in 32 training rows"):
        load({"a": [f"note {i}x" for i in range(N)], "v": range(N), "y": Y}, input_column=["a", "v"])


def test_words_for_missing_values_among_others_are_categories(load):
    words = ["NA", "None", "red", "?"] * 10
    data = load({"a": words, "v": range(N), "y": Y}, input_column=["a", "v"])
    assert data.train_x.shape[1] == 5 and (data.train_x[:, :4].sum(axis=1) == 1).all()
