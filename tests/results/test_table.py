import math

from fedbatch.results.table import calibration_table, phase_table


def test_one_line_a_stretch_with_its_last_test():
    def row(i, phase, accuracy):
        cost = {"rounds": i, "examples": 64 * i, "global_batch": 64, "cohort_size": 4}
        tests = {"test_accuracy": accuracy, "test_loss": 1 - accuracy}
        return {"phase": phase, **cost, **tests, "noise_scale": 50.0, "noise_scale_unit": "examples"}

    nan = math.nan
    rows = [
        row(1, "small", nan),
        row(2, "small", 0.25),
        row(3, "small", nan),
        row(4, "large", nan),
        row(5, "small", 0.5),
    ]
    columns = {column.header: list(column.cells) for column in phase_table(rows).columns}
    assert columns["phase"] == ["small", "large", "small"] and columns["rounds"] == ["1-3", "4-4", "5-5"]
    assert columns["accuracy"] == ["0.250", "nan", "0.500"] and columns["noise scale"][0] == "50 examples"


def test_calibration_before_and_after_with_the_bound_where_there_are_clients():
    scores = {"accuracy": 0.9, "ece": 0.1, "ece_se": 0.02, "ece_mass": 0.12, "nll": 0.5, "mean_ece": 0.2}
    both = {"test": scores, "held_out": scores}
    table = calibration_table({"temperature": 1.5, "before": both, "after": both})
    columns = {column.header: list(column.cells) for column in table.columns}
    assert columns["T"] == ["1", "1", "1.500", "1.500"] and columns["bound"] == ["", "0.2000", "", "0.2000"]
    assert columns["ECE"][0] == "0.1000 +- 0.0200"
    own = calibration_table({"temperature": 1.5, "clients": 20, "before": both, "after": {"held_out": scores}})
    assert list(own.columns[1].cells) == ["1", "1", "own"]
    assert calibration_table({"before": {"test": scores}}).row_count == 1


def test_a_run_with_queries_has_a_line_for_each_number_of_labels():
    row = {"phase": "fixed", "examples": 1, "global_batch": 4, "test_accuracy": 0.5, "test_loss": 1.0}
    row |= {"noise_scale": 1.0, "noise_scale_unit": "examples"}
    rows = [row | {"rounds": i, "cohort_size": 3 + i % 2, "labels_used": 10 * (1 + i // 3)} for i in range(1, 5)]
    columns = {column.header: list(column.cells) for column in phase_table(rows).columns}
    assert columns["rounds"] == ["1-2", "3-4"] and columns["labels"] == ["10", "20"]
