"""Do the private tests guard? Break one guarantee at a time, run the tests that should see it, and name survivors.

``make mutants``, or ``python -m tests.privacy.mutate [WORD ...]`` for the mutants whose names have all these words.
The package, its configs and its tests are copied to a temporary folder. There, one after the other, the mutants of
``mutants.toml`` are applied and taken back. Every mutant has a process of its own, forked from one that has imported
the libraries but nothing of fedbatch, which saves most of the time.
"""

import os
import re
import shutil
import signal
import sys
import tempfile
import time
import tomllib
import traceback
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).parents[2]
COPIED = ("fedbatch", "conf", "tests", "pyproject.toml")
LIST = Path(__file__).with_name("mutants.toml")
LIBRARIES = (
    *("torch", "torch._dynamo", "flwr", "flwr.serverapp", "flwr_datasets.partitioner", "hydra", "polars"),
    *("scipy.stats", "scipy.optimize", "sklearn.datasets", "opacus", "dp_accounting.pld", "dp_accounting.rdp"),
    *("matplotlib.pyplot", "hypothesis", "pytest"),
)
"""What tests import besides fedbatch, slowly."""
LIMIT_SECONDS = 120
PASSED, FAILED = 0, 1
"""Exit codes of pytest; any other is an error of the run itself."""


@dataclass(frozen=True)
class Mutant:
    """One change of one file that breaks one guarantee.

    Attributes:
        breaks: the guarantee, in words.
        file: path in ``fedbatch``.
        old: text that stands there exactly once.
        new: text in its place.
        tests: pytest names in ``tests``, one of which must fail.
    """

    breaks: str
    file: str
    old: str
    new: str
    tests: tuple[str, ...]

    def applied(self, text: str) -> str:
        """The file's text with the change.

        Raises:
            ValueError: the old text is not there, or more than once, or the new file is no Python.
        """
        if text.count(self.old) != 1 or self.old == self.new:
            raise ValueError(f"{self.breaks}: stands {text.count(self.old)} times in {self.file}: {self.old!r}")
        changed = text.replace(self.old, self.new)
        compile(changed, self.file, "exec")
        return changed


def listed() -> list[Mutant]:
    """The mutants of the list."""
    entries = tomllib.loads(LIST.read_text())["mutant"]
    return [Mutant(**entry | {"tests": tuple(entry["tests"])}) for entry in entries]


def survivors(mutants: Iterable[Mutant]) -> list[str]:
    """The guarantees that no test guards; every mutant is told in a line as it is tried.

    Raises:
        RuntimeError: the tests fail without any mutant, or cannot be run.
    """
    mutants = list(mutants)
    for library in LIBRARIES:
        __import__(library)
    with tempfile.TemporaryDirectory() as place:
        copy = copied(Path(place))
        tests = sorted({test for mutant in mutants for test in mutant.tests})
        code, told = tried(copy, tests, LIMIT_SECONDS * 10)
        if code != PASSED:
            raise RuntimeError(f"the tests fail without a mutant: {told}")
        return [mutant.breaks for mutant in mutants if survives(copy, mutant)]


def survives(copy: Path, mutant: Mutant) -> bool:
    """Whether its tests pass with the mutant."""
    file, start = copy / "fedbatch" / mutant.file, time.perf_counter()
    text = file.read_text()
    file.write_text(mutant.applied(text))
    try:
        code, told = tried(copy, mutant.tests)
    finally:
        file.write_text(text)
    if code not in (PASSED, FAILED):
        raise RuntimeError(f"{mutant.breaks}: its tests cannot be run: {told}")
    word = "killed  " if code == FAILED else "SURVIVES"
    print(f"{word} {time.perf_counter() - start:5.1f} s  {mutant.breaks} ({mutant.file}): {told}", flush=True)
    return code == PASSED


def copied(place: Path) -> Path:
    """A copy of what is mutated and tested; no compiled file, which could be taken for that of a changed source."""
    for name in COPIED:
        source, ignore = ROOT / name, shutil.ignore_patterns("__pycache__")
        if source.is_dir():
            shutil.copytree(source, place / name, ignore=ignore)
        else:
            shutil.copyfile(source, place / name)
    return place


def tried(copy: Path, tests: Iterable[str], limit: int = LIMIT_SECONDS) -> tuple[int, str]:
    """Pytest's exit code for these tests of the copy, in a forked process, and in a line how it ended."""
    log = copy / "pytest.log"
    child = os.fork()
    if not child:
        code = 70
        try:
            signal.alarm(limit)
            code = run_tests(copy, log, tests)
        except BaseException:
            traceback.print_exc()
        finally:
            sys.stdout.flush()
            os._exit(code)
    code = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
    return code, last_words(log.read_text())


def run_tests(copy: Path, log: Path, tests: Iterable[str]) -> int:
    """In the forked process: pytest on the copy, with output to the log."""
    import pytest

    with open(log, "w") as file:
        for number in (1, 2):
            os.dup2(file.fileno(), number)
    os.chdir(copy)
    sys.dont_write_bytecode = True
    os.environ |= {"PYTHONPATH": str(copy), "PYTHONDONTWRITEBYTECODE": "1", "PYTEST_DISABLE_PLUGIN_AUTOLOAD": "1"}
    sys.path[:] = [str(copy), *(path for path in sys.path if path and Path(path).resolve() != ROOT)]
    for name in [name for name in sys.modules if name.split(".")[0] in ("fedbatch", "tests")]:
        del sys.modules[name]
    names = [f"tests/{test}" for test in tests]
    options = ["-x", "-m", "", "--rootdir", str(copy), "-p", "no:cacheprovider", "--tb=short"]
    code = pytest.main([*names, *options])
    assert Path(sys.modules["fedbatch"].__file__ or "").is_relative_to(copy), "another fedbatch was tested"
    return int(code)


def last_words(log: str) -> str:
    """What of pytest's output says how it ended: the first failure, or the last line."""
    failed = re.search(r"^(?:FAILED|ERROR:?) (.*)", log, re.MULTILINE)
    return failed[1] if failed else (log.strip().splitlines() or ["no output"])[-1]


def main(words: Iterable[str]) -> int:
    """Try the mutants whose names have all these words; the exit code is 1 if one survives."""
    chosen = [mutant for mutant in listed() if all(word in mutant.breaks for word in words)]
    if not chosen:
        print(f"no mutant's name has {' and '.join(words)}")
        return 2
    alive = survivors(chosen)
    print(f"{len(chosen)} mutants, {len(alive)} survive{''.join(f'{chr(10)}  {name}' for name in alive)}")
    return int(bool(alive))


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
