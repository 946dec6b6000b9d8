"""The page in a real browser: it draws every chart, complains of nothing and asks the network for nothing."""

import shutil

import pytest

from fedbatch.report.page import write_report
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
    said = {"calibration": CALIBRATION, "privacy": PRIVACY, "epsilon": 2.0, "machine": {"system": "a machine"}}
    folder = write_run("all", columns=EVERYTHING, summary=said)
    assert opened(browser, write_report([folder])) == []
    marks = drawn(browser)
    assert sorted(marks) == sorted(f"chart-{name}" for name in CHARTS) and min(marks.values()) > 0
    assert values(browser, "accuracy", "x") == [2, 4, 6] and values(browser, "accuracy", "y") == [0.1, 0.3, 0.5]
    assert "after round 3: noise scale 9 > 4" in text(browser, "#switches")
    assert "not covered: choosing hyperparameters" in text(browser, "#statement")
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
    lines = browser.execute_script("return asCsv(sorted(visible()))").splitlines()
    assert lines[0].startswith("run,status,seed,controller,server_optimizer.lr,") and len(lines) == 3
    assert lines[1].startswith("0.1_1,finished,1,NoiseScaleLadder,0.1,")
    browser.execute_script("document.getElementById('csv').click()")
    browser.execute_script(type_in, "no such words")
    assert rows(browser) == [] and browser.get_log("browser") == []


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
