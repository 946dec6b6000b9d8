"""What pages name is there: scripts, modules, config choices; and no page is a stub."""

import re
from itertools import pairwise
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]
GROUPS = {folder.name for folder in (ROOT / "conf").iterdir() if folder.is_dir()}
WRITTEN = "\n".join(page.read_text() for page in PAGES)
OWN = {"loss=gce", "experiment=slurm"} | {
    f"{group}={name}" for group, name in re.findall(r"^# conf/(\w+)/(\w+)\.yaml$", WRITTEN, re.M)
}
"""Choices whose YAML files stand on a page."""


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.stem)
def test_scripts_and_modules_exist(page):
    text = page.read_text()
    assert len(text.splitlines()) > 10 and not re.search(r"^[A-Z]+$", text, re.M)
    for script in re.findall(r"python (\w+/[\w/]+\.py)", text):
        assert (ROOT / script).is_file(), script
    for module in re.findall(r"python -m ((?:simulations|benchmarks)[\w.]*)", text):
        path = ROOT / module.replace(".", "/")
        assert path.with_suffix(".py").is_file() or (path / "__main__.py").is_file(), module


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.stem)
def test_config_choices_exist(page):
    commands = re.findall(r"^(?:\$ )?(?:PYTHONPATH=\. )?fedbatch (.*?)(?:\s#.*)?$", page.read_text(), re.M)
    for choice in re.findall(r"\b([a-z_]+=[\w,]+)", " ".join(commands)):
        group, names = choice.split("=")
        if group in GROUPS and choice not in OWN:
            for name in names.split(","):
                assert (ROOT / "conf" / group / f"{name}.yaml").is_file(), choice


def test_the_readme_quotes_the_studies_as_they_are():
    readme, results = (ROOT / "README.md").read_text(), ROOT / "docs" / "results"
    settings = "MLP, IID, momentum", "MLP, Dirichlet 0.3, momentum", "MLP, IID, Adam", "MLP, 80 % random labels"
    told = (results / "switching.md").read_text()
    parts = [
        re.search(rf"^### {re.escape(s)}(?:, IID, momentum)?: .*?(?=^###)", told, re.M | re.S)[0] for s in settings
    ]
    for ours, theirs in {"small": "small, 64", "large": "large, 1,024", "ladder": "controller, told nothing"}.items():
        gaps = [re.search(rf"^\| {ours} \|.* \| ([-+][\d.]+) \(", part, re.M)[1] for part in parts]
        assert f"| {theirs} | {' | '.join(gaps)} |" in readme
    found = re.search(
        r"\| momentum \| all \| \d+ \| \d+ \| [\d.]+ \| ([\d.]+) \| ([\d.]+) to ([\d.]+) \|",
        (results / "critical_batch_size.md").read_text(),
    )
    assert found and f"r² of the logarithms {found[1]}, 90 % interval over tasks {found[2]} to {found[3]}" in readme


def test_the_page_of_algorithms_has_the_table_as_measured():
    page = (ROOT / "docs" / "which_algorithm.md").read_text()
    assert (ROOT / "docs" / "results" / "algorithms.md").read_text().strip() in page


WHOLE = [*PAGES, *(ROOT / f"{name}.md" for name in ("CHANGELOG", "CONTRIBUTING", "SECURITY"))]


@pytest.mark.parametrize("page", WHOLE, ids=lambda page: page.stem)
def test_lines_are_at_most_a_hundred_characters(page):
    long = [line for line in page.read_text().splitlines() if len(line) > 100]
    assert not [line for line in long if not line.lstrip().startswith(("|", "!["))]


@pytest.mark.parametrize("page", PAGES[1:], ids=lambda page: page.stem)
def test_a_page_opens_with_who_needs_it_or_with_its_verdict(page):
    first = page.read_text().split("\n\n")[1]
    assert re.search(r"[Tt]his page is for|^For those|^Who needs this|^Read this page|^\*\*", first), first


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.stem)
def test_no_comment_cuts_a_command_that_goes_on(page):
    """A backslash at the end of a line joins the next one, and a comment there swallows what follows."""
    lines = page.read_text().splitlines()
    assert not [after for line, after in pairwise(lines) if line.endswith("\\") and after.lstrip().startswith("#")]
    assert not [line for line in lines if re.search(r"\s#.*\\$", line)]
