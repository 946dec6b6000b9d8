import sys

from benchmarks import secure_aggregation


def test_the_quick_form_opens_the_plain_sum_and_prints_what_it_cost(capsys, monkeypatch):
    monkeypatch.setattr(sys, "argv", ["secure_aggregation", "--quick"])
    secure_aggregation.main()
    said = capsys.readouterr().out
    assert "1,000" in said and "server" in said
