"""The page in a real browser: it draws every chart, complains of nothing and asks the network for nothing."""

import shutil

import pytest

from fedbatch.report.page import page_of, write_report
from tests.report.conftest import CALIBRATION, EVERYTHING, PRIVACY

CHROMIUM, DRIVER = shutil.which("chromium"), shutil.which("chromedriver")
pytestmark = pytest.mark.skipif(not (CHROMIUM and DRIVER), reason="no chromium; apt-get install chromium-driver")


@pytest.fixture(scope="module")
def browser():
    from selenium import webdriver
    from selenium.webdriver.chrome.service import Service

    options = webdriver.ChromeOptions()
    options.binary_location = CHROMIUM
    for flag in ("--headless=new", "--no-sandbox", "--disable-gpu", "--window-size=1280,900"):
        options.add_argument(flag)
    options.set_capability("goog:loggingPrefs", {"browser": "ALL", "performance": "ALL"})
    driver = webdriver.Chrome(options=options, service=Service(DRIVER))
    yield driver
    driver.quit()


def opened(browser, path):
    """Open a page and return the requests it made, other than for itself."""
    browser.get("about:blank")
    browser.get_log("performance"), browser.get_log("browser")
    browser.get(path.as_uri())
    assert browser.get_log("browser") == []
    events = browser.get_log("performance")
    sent = [e["message"] for e in events if '"Network.requestWillBeSent"' in e["message"]]
    return [message for message in sent if path.as_uri() not in message]


def drawn(browser, part="#charts"):
    """Ids of the charts of a part of the page and the number of marks that each has drawn."""
    script = """return Object.fromEntries([...document.querySelectorAll(arguments[0] + ' .chart')].map(area =>
        [area.id, area.querySelectorAll('.scatterlayer .trace path, .barlayer .point').length]))"""
    return browser.execute_script(script, part)


def text(browser, selector):
    return browser.execute_script("return document.querySelector(arguments[0]).innerText", selector)


def values(browser, chart, axis):
    return browser.execute_script(
        "return document.getElementById(arguments[0]).data[0][arguments[1]]", f"chart-{chart}", axis
    )


CHARTS = "accuracy loss noise rate clients epsilon calibration reliability ratios attention labels stages".split()


def test_every_chart_of_a_run_is_drawn(browser, write_run):
    said = {
        "calibration": CALIBRATION,
        "privacy": PRIVACY | {"follows_seed": True},
        "epsilon": 2.0,
        "machine": {"system": "a machine"},
    }
    folder = write_run("all", columns=EVERYTHING, summary=said)
    assert opened(browser, write_report([folder])) == []
    marks = drawn(browser)
    assert sorted(marks) == sorted(f"chart-{name}" for name in CHARTS) and min(marks.values()) > 0
    assert values(browser, "accuracy", "x") == [2, 4, 6] and values(browser, "accuracy", "y") == [0.1, 0.3, 0.5]
    assert "after round 3: noise scale 9 > 4" in text(browser, "#switches")
    assert "not covered:\n  - choosing hyperparameters" in text(browser, "#statement")
    assert "a study: the noise follows from the seed" in text(browser, "#headline")
    assert "a machine" in text(browser, "#made-with")
    shades = browser.execute_script("return document.getElementById('chart-noise').layout.shapes")
    assert [(s["x0"], s["x1"]) for s in shades] == [(3, 6)]  # from the switch to the end


def test_one_switch_changes_the_axis_of_all_charts(browser, write_run):
    opened(browser, write_report([write_run("a")]))
    for axis, first in (("examples", 20), ("bytes", 600), ("simulated_seconds", 1.0), ("rounds", 2)):
        browser.execute_script(f"document.querySelector('input[value={axis}]').click()")
        assert values(browser, "accuracy", "x")[0] == first
        assert values(browser, "loss", "x")[1] == first
    assert browser.get_log("browser") == []


def rows(browser):
    lines = "return [...document.querySelectorAll('#runs tbody tr')].map(line => line.innerText.split('\\t')[0])"
    return browser.execute_script(lines)


def test_study_can_be_sorted_filtered_grouped_and_entered(browser, write_run, tmp_path):
    for lr in (0.1, 0.5):
        for seed in (0, 1):
            write_run(
                f"s/{lr}_{seed}", f"seed={seed}", f"server_optimizer.lr={lr}", columns={"examples": 90 * seed + 5}
            )
    write_run("s/lone", "seed=7", "controller=fixed", rounds=2)
    broken = write_run("s/broken", rounds=0, summary={"status": "failed", "error": "it broke"})
    assert opened(browser, write_report([broken.parent])) == []
    assert rows(browser) == ["0.1_0", "0.1_1", "0.5_0", "0.5_1", "broken", "lone"]
    heads = text(browser, "#runs thead").split("\t")
    assert heads[:5] == ["run", "status", "seed", "controller", "server_optimizer.lr"]  # not what follows from them
    assert "it broke" in text(browser, "#runs") and "6 of 6 runs" in text(browser, "#shown")
    assert set(drawn(browser, "#comparison")) == {"chart-comparison", "chart-pareto"}
    assert min(drawn(browser, "#comparison").values()) > 0
    groups = text(browser, "#groups")
    assert "controller=NoiseScaleLadder, lr=0.1\t2\t0.5\t" in groups and "50 ± 64" in groups  # sd of 5 and 95

    assert "seed\t0 | 1" in text(browser, "#varies").replace("\n", "\t") and "privacy" in text(browser, "#same")
    assert "reached by 5 of 5 runs" in text(browser, "#target-note")
    set_target = (
        "const t = document.getElementById('target'); t.value = arguments[0]; t.dispatchEvent(new Event('change'))"
    )
    browser.execute_script(set_target, "0.5")
    assert "reached by 4 of 5 runs" in text(browser, "#target-note")  # the short one has got to 0.1
    assert "controller=NoiseScaleLadder, lr=0.1\t2 of 2\t6\t" in text(browser, "#to-target")
    browser.execute_script(set_target, "0.99")
    assert "reached by 0 of 5 runs" in text(browser, "#target-note")

    head = "[...document.querySelectorAll('#runs th button')].find(b => b.innerText.startsWith('examples')).click()"
    browser.execute_script(head), browser.execute_script(head)
    assert rows(browser) == ["0.1_1", "0.5_1", "lone", "0.1_0", "0.5_0", "broken"]  # descending; without a value last
    type_in = "const f = document.getElementById('filter'); f.value = arguments[0]; f.dispatchEvent(new Event('input'))"
    browser.execute_script(type_in, "finished seed=1")
    assert rows(browser) == ["0.1_1", "0.5_1"] and "2 of 6 runs" in text(browser, "#shown")
    assert "50 ±" not in text(browser, "#groups")
    browser.execute_script("document.querySelectorAll('#runs button.run')[1].click()")
    assert text(browser, "#name").startswith("Run 0.5_1") and "0.5\t0.1" in text(browser, "#changed")
    lines = browser.execute_script("return asCsv(tableOf(sorted(visible())))").splitlines()
    assert lines[0].startswith("run,status,seed,controller,server_optimizer.lr,") and len(lines) == 3
    assert lines[1].startswith("0.1_1,finished,1,NoiseScaleLadder,0.1,")
    browser.execute_script("document.getElementById('csv').click()")
    browser.execute_script(type_in, "no such words")
    assert rows(browser) == [] and browser.get_log("browser") == []


@pytest.fixture
def sweep(write_run):
    """Six runs: two batches, three rates; the accuracy of the last round says which is which."""
    for batch in (1, 2):
        for i, lr in enumerate((0.1, 0.2, 0.4)):
            scores = {"test_accuracy": 0.1 * batch + 0.01 * i, "examples": 100, "global_batch": batch}
            folder = write_run(
                f"s/{batch}_{i}",
                *("controller=fixed", f"client_batch_size={batch}", f"server_optimizer.lr={lr}"),
                columns=scores,
                summary={"test_examples": 10_000},
            )
    return folder.parent


def choose(browser, name, value):
    script = "const s = document.getElementById(arguments[0]); s.value = arguments[1]; s.onchange()"
    browser.execute_script(script, name, value)


def test_settings_are_drawn_in_three_ways(browser, sweep):
    assert opened(browser, write_report([sweep])) == []
    data = "return document.getElementById('chart-settings').data[0]"
    shown = browser.execute_script(data)
    assert (shown["type"], shown["x"], shown["y"]) == ("heatmap", ["1", "2"], ["0.1", "0.2", "0.4"])
    assert shown["z"] == [[0.1, 0.2], [0.11, 0.21], [0.12, 0.22]] and shown["customdata"] == [[1, 1]] * 3
    choose(browser, "view", "scatter")
    choose(browser, "x", "server_optimizer.lr"), choose(browser, "y", "test accuracy")
    shown = browser.execute_script(data)
    assert shown["x"] == [0.1, 0.2, 0.4] * 2 and shown["y"] == [0.1, 0.11, 0.12, 0.2, 0.21, 0.22]
    choose(browser, "view", "lines")
    assert browser.execute_script("return document.getElementById('chart-settings').data.length") == 6
    assert browser.execute_script(data)["y"] == [0, 0, 0]  # the smallest batch and rate have the lowest accuracy
    assert browser.execute_script("return find('x-label').hidden") and browser.get_log("browser") == []


def test_runs_are_left_out_by_their_boxes_and_the_best_groups_are_drawn(browser, sweep):
    opened(browser, write_report([sweep]))
    lines = "return document.getElementById('chart-comparison').data.map(trace => trace.name)"
    assert len(browser.execute_script(lines)) == 6
    choose(browser, "most", 2)
    assert [name.split(", ") for name in browser.execute_script(lines)] == [
        ["client_batch_size=2", "lr=0.2"],
        ["client_batch_size=2", "lr=0.4"],
    ]
    assert text(browser, "#groups").count("\n") == 6  # the table has all
    browser.execute_script("document.querySelectorAll('#runs input')[5].click()")
    assert "6 of 6 runs, 5 of them compared" in text(browser, "#shown")
    assert "lr=0.4" not in " ".join(browser.execute_script(lines)) and text(browser, "#groups").count("\n") == 5
    browser.execute_script("find('none').click()")
    assert text(browser, "#groups").count("\n") == 0
    browser.execute_script("find('all').click()")
    assert len(browser.execute_script(lines)) == 2 and browser.get_log("browser") == []


def test_equal_costs_are_no_front_and_scores_within_chance_no_mountain(browser, sweep, write_run):
    opened(browser, write_report([sweep]))
    note = "return document.getElementById('chart-pareto').closest('figure').innerText"
    assert "all cost the same, so that there is no front" in browser.execute_script(note)
    names = "return document.getElementById('chart-pareto').data.map(trace => trace.name)"
    assert "Pareto front" not in browser.execute_script(names)
    span = "const [a, b] = document.getElementById('chart-pareto').layout.yaxis.range; return b - a"
    assert 0.1 < browser.execute_script(span) < 0.2  # scores are 0.12 apart, forty times their error: as they are
    for i in range(2):  # 0.1 and 0.102 of 100 examples, whose error is 0.03
        columns = {"test_accuracy": 0.1 + 0.002 * i}
        folder = write_run(f"t/{i}", f"server_optimizer.lr=0.{i + 1}", columns=columns, summary={"test_examples": 100})
    opened(browser, write_report([folder.parent]))
    assert browser.execute_script(span) == pytest.approx(0.3, rel=0.02)


def test_curves_are_smoothed_and_axes_logarithmic(browser, write_run):
    opened(browser, write_report([write_run("a")]))
    browser.execute_script(
        "const s = document.querySelector('#axis .smooth'); s.value = 2; s.onchange();"
        "document.querySelectorAll('#axis [type=checkbox]').forEach(box => box.click())"
    )
    losses = browser.execute_script("return document.getElementById('chart-loss').data[0].y")
    assert losses == pytest.approx([2, 1.5, 5 / 6, 7 / 12, 0.45, 11 / 30])  # of 2, 1, 2/3, 1/2, 0.4, 1/3
    types = "const l = document.getElementById('chart-loss').layout; return [l.xaxis.type, l.yaxis.type]"
    assert browser.execute_script(types) == ["log", "log"]
    batches = "return document.getElementById('chart-noise').data.find(trace => trace.name === 'global batch').y"
    assert browser.execute_script(batches) == [4, 4, 4, 16, 16, 16]  # a size is no noisy value
    at = "return document.getElementById('chart-loss').layout.annotations.map(each => [each.text, each.x])"
    assert browser.execute_script(at) == [["small", 0], ["large", pytest.approx(0.4771, abs=1e-4)]]  # after 3 rounds
    why = "return document.getElementById('chart-loss').layout.annotations[1].hovertext"
    assert browser.execute_script(why) == "after round 3: noise scale 9 &gt; 4" and browser.get_log("browser") == []


def test_one_run_tells_what_a_target_costs_by_other_batches(browser, write_run):
    def passing(i):  # half accuracy after 50 rounds; a noise scale of 64 at a batch of 64
        return noisy(i) | {"test_accuracy": i / 98, "test_loss": 1.0}

    for seed in (0, 1):
        folder = write_run(f"s/{seed}", "population=100", f"seed={seed}", rounds=100, columns=passing)
    opened(browser, write_report([folder.parent]))
    target = "const t = document.getElementById('target'); t.value = 0.5; t.dispatchEvent(new Event('change'))"
    browser.execute_script(target)
    told = browser.execute_script("return document.getElementById('chart-to-target').data.at(-1)")
    assert told["name"] == "told by one run"
    # At the run's own batch its own 50 rounds; half of each step is noise: 25 rounds and 25 x 64 examples at least.
    for rounds, examples in zip(told["x"], told["y"], strict=True):
        batch = examples / rounds
        assert rounds == pytest.approx(25 + 25 * 64 / batch, rel=0.01)
    choose(browser, "teller", "1")
    note = "return document.getElementById('chart-to-target').closest('figure').innerText"
    assert "as told by run 1 alone" in browser.execute_script(note) and browser.get_log("browser") == []


def test_a_page_that_is_loaded_again_keeps_what_was_chosen(browser, sweep, tmp_path):
    live = tmp_path / "live.html"
    live.write_text(page_of([sweep], tmp_path, again_after=3600))
    opened(browser, live)
    choose(browser, "view", "scatter"), choose(browser, "most", 2), choose(browser, "group", "client_batch_size")
    browser.execute_script("document.querySelector('input[value=examples]').click(); choose(page.runs[3])")
    browser.execute_script("document.querySelectorAll('#runs input')[5].click()")
    browser.refresh()
    kept = "return [find('view').value, find('most').value, find('group').value, chosen.axis, chosen.run.name]"
    assert browser.execute_script(kept) == ["scatter", "2", "client_batch_size", "examples", "s/2_0"]
    assert "5 of them compared" in text(browser, "#shown") and browser.get_log("browser") == []
    assert browser.execute_script("return document.getElementById('chart-settings').data[0].type") == "scatter"


def test_every_chart_gives_its_points(browser, write_run):
    opened(browser, write_report([write_run("a")]))
    buttons = "return [...document.querySelectorAll('.chart')].map(c => c.querySelectorAll('[data-title*=CSV]').length)"
    assert set(browser.execute_script(buttons)) == {1}


@pytest.mark.parametrize("width", [1280, 390])
def test_page_fits_the_screen(browser, write_run, tmp_path, width):
    for seed in (0, 1):
        write_run(f"s/{seed}", f"seed={seed}", columns=EVERYTHING)
    size = {"width": width, "height": 800, "deviceScaleFactor": 1, "mobile": width < 600}
    browser.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", size)
    try:
        opened(browser, write_report([tmp_path / "s"]))
        assert browser.execute_script("return document.documentElement.scrollWidth") <= width
        widths = "return [...document.querySelectorAll('.chart .main-svg')].map(s => s.getBoundingClientRect().right)"
        assert max(browser.execute_script(widths)) <= width
    finally:
        browser.execute_cdp_cmd("Emulation.clearDeviceMetricsOverride", {})


def test_five_hundred_runs(browser, write_run, tmp_path):
    first = write_run("s/0", columns=EVERYTHING)
    for i in range(1, 500):
        shutil.copytree(first, tmp_path / "s" / str(i))
        config = tmp_path / "s" / str(i) / "config.yaml"
        config.write_text(config.read_text().replace("\nseed: 0\n", f"\nseed: {i}\n"))
    target = write_report([tmp_path / "s"])
    assert opened(browser, target) == []
    assert len(rows(browser)) == 500 and "500 of 500 runs" in text(browser, "#shown")
    assert text(browser, "#groups").count("\n") == 1  # one group: seeds are no difference


def noisy(i):
    """A round whose noise is that of one batch, of a run whose loss passes 0.75 half-way."""
    columns = {"rounds": i + 1, "phase": "fixed", "cohort_size": 16, "global_batch": 64, "train_loss": 1 - i / 200}
    estimates = {"round_trace": 64.0, "round_grad_sq": 1.0, "switch": "", "bytes_up": 16 * i, "bytes_down": 16 * i}
    return columns | estimates | {"test_loss": float("nan")}


def test_what_batch(browser, write_run):
    folder = write_run("a", "population=100", rounds=100, columns=noisy)
    assert opened(browser, write_report([folder])) == []
    assert "64 (this run)" in text(browser, "#critical-costs") and "64 x 4" in text(browser, "#critical-costs")
    assert "twice their least (B_crit" in text(browser, "#critical-text")
    assert min(drawn(browser, "#critical-chart").values()) > 0
    assert browser.execute_script("return document.getElementById('critical-doubts').children.length") == 0
    lines = "return document.querySelectorAll('#critical-goals tbody tr').length"
    assert browser.execute_script(lines) == 4


def test_why_a_run_does_not_say_what_batch(browser, write_run):
    assert opened(browser, write_report([write_run("old", columns={"round_trace": float("nan")})])) == []
    assert "This run does not say: its record has no round_grad_sq" in text(browser, "#critical-text")
    assert drawn(browser, "#critical-chart") == {} and browser.get_log("browser") == []
