"""Functions of the page's scripts, called in a real browser with numbers that can be checked by hand."""

from fedbatch.report.page import write_report
from tests.report.test_browser import browser, pytestmark  # noqa: F401

CASES = [
    ("number(0.123456)", "0.1235"),
    ("number(1234567)", "1,234,567"),
    ("number(0.00001)", "1.00e-5"),
    ("number(1e300)", "open"),
    ("number(null)", ""),
    ("number('text')", "text"),
    ("bytes(2.5e9)", "2.5 GB"),
    ("bytes(1.5e6)", "1.5 MB"),
    ("capital('test loss')", "Test loss"),
    ("interpolated([0, 10, 20], [0, 5, 10], [0, 5, 15, 30])", [0, 2.5, 7.5, 10]),
    ("interpolated([0, 10, 20], [0, null, 10], [10])", [5]),
    ("pareto([{x: 1, y: 1}, {x: 2, y: 0}, {x: 3, y: 2}]).map(p => p.x)", [1, 3]),
    ("pareto([{x: 1, y: 1}, {x: 1, y: 2}]).map(p => p.y)", [2]),
    ("moments([1, 3, null]).mean", 2),
    ("logAxis([1, 10]).tickvals", [1, 2, 5, 10, 20, 50]),
    ("logAxis([0, -1, 5]).type", "log"),
    ("costOf({curves: {rounds: [1, 2, 3], s: [0.1, null, 0.5]}}, 's', 0.4, 'rounds')", 3),
    ("costOf({curves: {rounds: [1, 2, 3], s: [0.1, null, 0.5]}}, 's', 0.6, 'rounds')", None),
    ("costOf({curves: {rounds: [1], s: [0.5]}}, 's', 0.4, 'examples')", None),
    ("usualTarget([{curves: {s: [0.1, 0.5]}}, {curves: {s: [0.2, 0.9, null]}}], 's')", 0.46),  # 0.1 + 0.9 x 0.4
    ("usualTarget([{curves: {}}], 's')", None),
    ("spread(moments([1e6, 3e6]), bytes)", "2 MB ± 1.41 MB"),
    ("field('a,\"b\"')", '"a,""b"""'),
    ("field('=1+1')", "'=1+1"),
    ("field(-1.5)", "-1.5"),
    ("field(null)", ""),
    ("smoothed([1, null, 3, 8], 2)", [1, None, 2, 5.5]),
    (
        "scaled({data: [{x: [1, 2], y: [-1, 5]}], layout: {}}, {logX: true, logY: true}).data[0].y",
        [None, 5],
    ),
    ("scaled({data: [{x: [1, 2], y: [-1, 5], fill: 'toself'}], layout: {}}, {logY: true}).data[0].y", [5, 5]),
    (
        "scaled({data: [{x: [1], y: [1]}], layout: {annotations: [{x: 100}]}}, {logX: true}).layout.annotations[0].x",
        2,
    ),
    ("scaled({data: [{x: [0, -2], y: [1, 5]}], layout: {xaxis: {a: 1}}}, {logX: true}).layout.xaxis", {"a": 1}),
    (
        "asCsv(pointsOf([{name: 'a', x: [1, 2], y: [3, 4]}, {name: 'band', hoverinfo: 'skip', x: [0], y: [0]}]))",
        "name,x,y\na,1,3\na,2,4\n",
    ),
    ("widened([0.5, 0.51], 0.01)", [0.455, 0.555]),  # eight standard errors are 0.08
    ("widened([0.5, 0.9], 0.01)", None),
    ("widened([0.5, 0.51], 0)", None),
    ("byChance({summary: {test_examples: 100}, curves: {test_accuracy: [0.2]}}, 'test_accuracy')", 0.04),
    ("new Set(Array.from({length: 49}, (_, i) => look(i).color + look(i).symbol)).size", 49),
    ("new Set(Array.from({length: 28}, (_, i) => look(i).color + look(i).dash)).size", 28),
    ("viridis(0)", "rgb(68, 1, 84)"),
    ("viridis(1)", "rgb(253, 231, 37)"),
    ("viridis(0.375)", "rgb(46, 114, 140)"),  # half-way between the second and the third
    # S_min 20 and E_min 640 after 40 rounds: a batch of 32 needs 40 rounds, one of 64 needs 30 and 1,920 examples.
    (
        "toldBy({critical: {sums: [[20, 10, 320], [40, 20, 640]]}}, 40, [32, 64]).map(t => [t.rounds, t.examples])",
        [[40, 1280], [30, 1920]],
    ),
    ("toldBy({critical: {sums: [[20, 10, 320], [40, 20, 640]]}}, 10, [32]).map(t => t.rounds)", [10]),
    ("METRICS.lr", "server learning rate"),  # from the table of columns
    ("COSTS.simulated_seconds", "simulated seconds"),
]


def test_by_hand(browser, write_run):  # noqa: F811
    browser.get(write_report([write_run("a")]).as_uri())
    found = [(code, browser.execute_script(f"return {code};")) for code, _ in CASES]
    assert found == CASES
