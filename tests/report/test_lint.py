"""The page's scripts as one, as browsers have them: no name that is not there, none that nothing uses."""

import json
import subprocess
import sysconfig
from pathlib import Path

from fedbatch.report.page import SCRIPTS, _file

RULES = {"categories": {"correctness": "error"}, "env": {"browser": True, "es2024": True}}
RULES |= {"globals": {"Plotly": "readonly"}, "rules": {"no-undef": "error", "no-unused-vars": "error"}}


def lint(tmp_path, script):
    (tmp_path / "rules.json").write_text(json.dumps(RULES))
    (tmp_path / "page.js").write_text(script)
    oxlint = Path(sysconfig.get_path("scripts")) / "oxlint"
    done = subprocess.run([oxlint, "-c", "rules.json", "page.js"], cwd=tmp_path, capture_output=True, text=True)
    return done.returncode, done.stdout


def test_scripts_have_no_fault_that_a_linter_sees(tmp_path):
    code, said = lint(tmp_path, "\n".join(map(_file, SCRIPTS)))
    assert code == 0, said


def test_linter_sees_what_it_is_for(tmp_path):
    code, said = lint(tmp_path, "const never = 1;\nnowhere();")
    assert code and "no-undef" in said and "no-unused-vars" in said
