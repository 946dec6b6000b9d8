"""The list of mutants fits the code as it is, and none of them survives."""

import re
import subprocess
import sys
from collections import Counter

import pytest

from tests.privacy.mutate import ROOT, listed

NO_CHANGE = """
from tests.privacy.mutate import Mutant, survivors
test = ("privacy/test_statement.py::test_delta_is_a_tenth_of_one_over_many_units",)
mutants = [Mutant("words", "privacy/nonce.py", "The nonce of a run:", "A nonce:", test)]
mutants += [Mutant("delta", "privacy/plan.py", "min(1e-5, 0.1 / units)", "1.0", test)]
assert survivors(mutants) == ["words"]
"""


def test_every_mutant_can_be_applied_and_names_its_tests():
    mutants = listed()
    assert len(mutants) >= 40
    assert not [name for name, count in Counter(mutant.breaks for mutant in mutants).items() if count > 1]
    for mutant in mutants:
        mutant.applied((ROOT / "fedbatch" / mutant.file).read_text())
        for test in mutant.tests:
            file, _, name = test.partition("::")
            assert re.search(rf"^def {name.partition('[')[0]}\(", (ROOT / "tests" / file).read_text(), re.MULTILINE), (
                test
            )


def test_a_mutant_that_is_not_found_is_an_error():
    (mutant, *_) = listed()
    with pytest.raises(ValueError, match="stands 0 times in"):
        mutant.applied("other text")
    with pytest.raises(ValueError, match="stands 2 times in"):
        mutant.applied(2 * mutant.old)


@pytest.mark.slow
def test_a_survivor_is_named():
    subprocess.run([sys.executable, "-c", NO_CHANGE], cwd=ROOT, check=True)


@pytest.mark.slow
def test_no_mutant_survives():
    done = subprocess.run([sys.executable, "-m", "tests.privacy.mutate"], cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout[-2000:] + done.stderr[-2000:]
