from benchmarks.optimizer_step import measure, ratios, table, transformer_shapes


def test_every_optimizer_is_timed_and_judged_against_adamw() -> None:
    shapes = transformer_shapes(layers=1, width=4, tokens=6)
    assert len(shapes) == 2 + 12 + 2 and shapes[:4] == [(6, 4), (6, 4), (4,), (4,)]
    rows = measure(shapes, repeats=2)
    assert [row.system for row in rows] == ["AdamW(foreach)", "LARS", "LAMB", "MERIT"]
    found = {ratio.name: ratio for ratio in ratios(rows)}
    lamb = found["step of LAMB / AdamW(foreach)"]
    assert lamb.target == 1.3 and lamb.ratio == rows[2].seconds_median / rows[0].seconds_median
    assert found["step of MERIT / AdamW(foreach)"].target == 2.0
    assert table(rows, 100).row_count == 4
