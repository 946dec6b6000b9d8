import numpy as np
import pytest

from fedbatch.data.hub import hugging_face

ROWS = range(20)


def table(row, header="a,y"):
    return "\n".join([header, *(row(i) for i in ROWS)])


# Classes alternate, and 0, 5, 10, ... are as good as any; the values of the training rows, standardised, are those of
# the numbers 0 .. 19 without the four that are held out.
def standardised(data):
    x = np.concatenate([data.train_x, data.test_x])[:, 0]
    return np.sort((x - x.min()) / (x.max() - x.min()) * 19)


@pytest.mark.parametrize(
    ("content", "columns"),
    [
        (table(lambda i: f"{i},{i % 2}"), "a"),
        (table(lambda i: f"{i}.0,{i % 2}.0"), "a"),
        (table(lambda i: f" {i} ,{bool(i % 2)}"), "a"),
        (table(lambda i: f"{i};{i % 2}", "a;y"), "a"),
        (table(lambda i: f"{i}\t{i % 2}", "a\ty"), "a"),
        (table(lambda i: f"{i}|{i % 2}", "a|y"), "a"),
        ("\ufeff" + table(lambda i: f'"{i}","{i % 2}"', '"a","y"'), "a"),
        (table(lambda i: f"{i},{i % 2}").replace("\n", "\r\n"), "a"),
        (table(lambda i: f"{2**60 + i},{i % 2}"), "a"),
        (table(lambda i: f"{1_600_000_000_000 + i},{i % 2}"), "a"),
        (table(lambda i: f"{i}e300,{i % 2}"), "a"),
        (table(lambda i: f"{i}e-300,{i % 2}"), "a"),
        (table(lambda i: f"2020-01-{i + 1:02d},{i % 2}"), "a"),
        (table(lambda i: f"2020-01-01T00:00:{i:02d}+02:00,{i % 2}"), "a"),
    ],
)
def test_numbers_however_they_are_written(load, content, columns):
    data = load(content, input_column=columns)
    np.testing.assert_allclose(standardised(data), ROWS, atol=1e-5)
    assert data.num_classes == 2 and np.bincount(data.train_y).tolist() == [8, 8]


def test_words_for_a_missing_value_are_classes_and_texts(load):
    names = ["None", "NA", "nan", "null"]
    data = load(table(lambda i: f"{i},{names[i % 4]}"))
    assert data.num_classes == 4 and len(data.train_y) + len(data.test_y) == 20


def test_columns_are_understood_from_all_splits_together(tmp_path):
    (tmp_path / "t").mkdir()
    (tmp_path / "t/train.csv").write_text(table(lambda i: f"{'1AB'[i % 3]},{i},{i % 3}", "a,b,y"))
    (tmp_path / "t/test.csv").write_text("a,b,y\n1,NA,0\n1,7,1\n")
    data = hugging_face(str(tmp_path / "t"), input_column=["a", "b"], label_column="y", missing="impute")
    assert data.test_x[:, :3].tolist() == [[1, 0, 0], [1, 0, 0]], "1 is a category beside A and B"
    std = np.arange(20).std()
    np.testing.assert_allclose(data.test_x[:, 3], [0, (7 - 9.5) / std], atol=1e-6)
    assert data.test_x.shape == (2, 4)


@pytest.mark.parametrize(
    ("content", "words"),
    [
        ("", ["the file is empty"]),
        ("a,y\n", ["split train", "has no rows"]),
        ("a,y\n1,0\n", ["all 1 rows are of one class (0)"]),
        (table(lambda i: f"{i},{i % 2}").encode("utf-16"), ["not in UTF-8", "save it as UTF-8"]),
        (table(lambda i: f"{i},3,{i % 2}", "a,a,y"), ["more than one column a"]),
        (table(lambda i: f"{i},{i % 2}", "7,1"), ["no column a, only 7, 1", "first line of the file must hold"]),
        (table(lambda i: f"{i},{i % 2}", "a, y"), ["take the spaces away around y"]),
        (table(lambda i: f"{i},{i % 2},9"), ["more fields than its first line has names"]),
        (table(lambda i: f"{i},{i % 2}" + ",9" * (i == 5)), ["Expected 2 fields in line 7, saw 3"]),
        (table(lambda i: f"{i},{i % 2}" if i != 5 else "5"), ["label_column=y", "1 of 20 rows (5, counted from 0)"]),
        (table(lambda i: '"' * (i == 9) + f"{i},{i % 2}"), ["cannot be read", "EOF inside string"]),
        (table(lambda i: f"{i if i != 4 else 'NA'},{i % 2}"), ["no value of a in 1 of 20 rows (4,", "fill or drop"]),
        (table(lambda i: f"{i if i != 4 else 'foo'},{i % 2}"), ["no plain number ('foo') in 1 of 20 rows (4,"]),
        (table(lambda i: f"{i if i != 4 else 'inf'},{i % 2}"), ["infinite in 1 of 20 rows (4,"]),
        (table(lambda i: f"{i},5;{i % 2}", "a;y"), ["no plain number ('0,5')", "write 1.5 for 1,5"]),
        (table(lambda i: f'"{i + 1},000",{i % 2}'), ["no plain number ('1,000') in 20 of 20 rows"]),
        (table(lambda i: f"{i},{i % 2 if i != 4 else 'NA'}"), ["label_column=y: 1 of 20 rows (4,", "drop them"]),
        (table(lambda i: f"{i},{i % 2 if i != 4 else ''}"), ["label_column=y: 1 of 20 rows (4,", "drop them"]),
        (table(lambda i: f"{i},{'007' if i % 2 else '7'}"), ["column y writes one number in several ways"]),
    ],
)
def test_files_that_cannot_be_understood_are_refused_in_one_line(load, content, words):
    with pytest.raises(ValueError) as error:
        load(content)
    assert "\n" not in str(error.value) and str(error.value).startswith("dataset")
    for word in words:
        assert word in str(error.value)
