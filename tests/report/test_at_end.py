import subprocess
import sys

import pytest
from omegaconf import OmegaConf

from fedbatch.report.at_end import ReportAtEnd, write_reports


def begin(folder, report="html"):
    config = {"report": report, "hydra": {"run": {"dir": str(folder)}, "sweep": {"dir": str(folder.parent)}}}
    return OmegaConf.create(config)


def test_page_is_written_once_for_what_began(write_run, capsys):
    folder = write_run("s/0")
    ReportAtEnd().on_run_start(begin(folder), config_name="config")
    write_reports()
    assert capsys.readouterr().out.startswith(f"report: {folder / 'report.html'} (")
    (folder / "report.html").unlink()
    write_reports()
    assert not (folder / "report.html").exists()
    ReportAtEnd().on_multirun_start(begin(folder))
    write_reports()
    assert (folder.parent / "report.html").exists() and not (folder / "report.html").exists()


def test_no_page_where_none_is_wanted_or_no_run_began(write_run, tmp_path, capsys):
    folder = write_run("a")
    ReportAtEnd().on_run_start(begin(folder, report="none"))
    ReportAtEnd().on_run_start(begin(tmp_path / "refused"))
    write_reports()
    assert not (folder / "report.html").exists() and capsys.readouterr() == ("", "")


def test_a_full_disk_costs_the_page_only(write_run, monkeypatch, capsys):
    def full(*_):
        raise OSError(28, "No space left on device")

    folder = write_run("a")
    monkeypatch.setattr("fedbatch.report.page.write_atomically", full)
    ReportAtEnd().on_run_start(begin(folder))
    write_reports()
    assert capsys.readouterr().err == f"fedbatch: {folder}: no report: No space left on device\n"


@pytest.mark.slow
def test_a_sweep_that_fails_still_has_its_page(tmp_path):
    options = "dataset=digits population=20 cohort_size=4 controller=fixed rounds=2 model.width=8"
    rates = "server_optimizer.lr=0.1,1e30"
    command = [sys.executable, "-m", "fedbatch", "-m", *options.split(), rates, f"run_dir={tmp_path / 's'}"]
    done = subprocess.run(command, capture_output=True, text=True, cwd=tmp_path)
    assert done.returncode == 1 and "training has diverged" in done.stderr
    assert done.stdout.splitlines()[-1].startswith(f"report: {tmp_path / 's' / 'report.html'} (")
    page = (tmp_path / "s" / "report.html").read_text()
    assert '"status":"finished"' in page and '"status":"failed"' in page
    assert not list(tmp_path.glob("s/*/report.html"))
