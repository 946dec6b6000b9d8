"""Folders, phases and statuses of somebody else are called what he likes: names are shown and never obeyed."""

import json
import re
import subprocess
import sys
from urllib.parse import unquote, urljoin, urlsplit

import pytest

from fedbatch.cli.commands import run_command
from fedbatch.report.page import page, write_report
from fedbatch.report.read import link, read_runs

NAMES = [
    "javascript:alert(1)",
    "JaVaScRiPt:alert(1)",
    "data:text,<script>alert(1)",
    "file:",
    "a#b?c%20d&e",
    "<b>bold<",
    "<img src=x onerror=alert(1)>",
    "[red]x[bold]",
    "@VERSION@",
    "@DATA@",
    "\x1b[2J\x1b]0;owned\x07",
    "two\nlines",
    "‮gpj.exe",
    "%{text} $x$",
    "quote\"and'quote",
    "\\back",
    b"\xff\xfe".decode("utf-8", "surrogateescape"),
    "<script><!--",
]


@pytest.fixture
def named(write_run, tmp_path):
    """Finished runs below one folder, one of each name."""
    for i, name in enumerate(NAMES):
        write_run(f"s{i}", "controller=fixed")
        (tmp_path / "all").mkdir(exist_ok=True)
        (tmp_path / f"s{i}").rename(tmp_path / "all" / name)
    return tmp_path / "all"


@pytest.mark.parametrize("name", NAMES, ids=ascii)
def test_a_link_leads_to_the_folder_and_nowhere_else(name):
    for place in (name, f"../{name}"):
        target = urlsplit(urljoin("file:///here/there/report.html", link(place)))
        base = "/here/there/" if place == name else "/here/"
        assert (target.scheme, target.netloc, target.query, target.fragment) == ("file", "", "", "")
        assert unquote(target.path, errors="surrogateescape") == base + name


def test_a_page_of_such_runs_is_written_and_says_their_names(named):
    values = read_runs(sorted(named.iterdir()), named)
    assert {run["name"] for run in values["runs"]} == set(NAMES)
    assert all(run["link"].startswith("./") for run in values["runs"])
    html = page({**values, "title": "@DATA@ <b>"})
    data = re.search(r'<script[^>]*id="data"[^>]*>(.*?)</script>', html, re.DOTALL)
    assert {run["name"] for run in json.loads(data[1])["runs"]} == set(NAMES)
    assert write_report([named]).exists()


def test_tags_in_names_are_texts_of_a_chart():
    """What Plotly gets, by the page's own function."""
    from importlib import resources

    script = resources.files("fedbatch.report").joinpath("draw.js").read_text()
    given = {
        "name": "<b>&",
        "x": [1, None],
        "text": ["<a href='javascript:x'>"],
        "hovertemplate": "%{x}<extra></extra>",
    }
    layout = {"annotations": [{"text": "<i>", "x": 1}], "xaxis": {"title": {"text": "<u>"}}}
    call = f"\nconsole.log(JSON.stringify([shownTexts([{json.dumps(given)}]), shownTexts({json.dumps(layout)})]))"
    try:
        done = subprocess.run(["node", "-e", script + call], capture_output=True, text=True, check=True)
    except FileNotFoundError:
        pytest.skip("no node")
    (trace,), shown = json.loads(done.stdout)
    assert trace["name"] == "&lt;b&gt;&amp;" and trace["text"] == ["&lt;a href='javascript:x'&gt;"]
    assert trace["x"] == [1, None] and trace["hovertemplate"] == given["hovertemplate"]
    assert shown == {"annotations": [{"text": "&lt;i&gt;", "x": 1}], "xaxis": {"title": {"text": "&lt;u&gt;"}}}


def test_the_terminal_shows_names_and_statuses_as_they_are(named, capsys, monkeypatch):
    monkeypatch.setenv("COLUMNS", "200")
    for i, folder in enumerate(sorted(named.iterdir())):
        said = json.loads((folder / "summary.json").read_text())
        said |= {"status": ["[/]", "[red]", "\x1b[31mfailed", "failed"][i % 4], "error": "[/b] \x1b[2J\r\n"}
        (folder / "summary.json").write_text(json.dumps(said))
    sys.stdout.flush()
    assert run_command("status", str(named)) == 0
    told = capsys.readouterr().out
    assert "\x1b" not in told and "\x07" not in told and "‮" not in told
    assert "[red]x[bold]" in told and "\\x1b[2J" in told and "[/b]" in told


@pytest.mark.parametrize("name", ["\x1b[2Jx", "two\nlines"])
def test_a_message_about_a_folder_is_one_line_that_steers_nothing(name, capsys):
    for command in ("status", "report", "critical", "evaluate"):
        assert run_command(command, f"nowhere/{name}") == 2
        said = capsys.readouterr().err
        assert said.count("\n") == 1 and "\x1b" not in said
