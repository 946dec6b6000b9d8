"""All that a GPU should answer, in eight minutes and without a network: ``python -m benchmarks.gpu_check``.

Prints one line a finding and writes ``gpu_check.json`` after every section, so that what is cut off is not lost. Each
section has its share of the seconds. A finding that is wrong has ``FAILS`` in it. Needs torch with CUDA and what
fedbatch imports; Polars may be missing.
"""

import argparse
import json
import os
import sys
import tempfile
import traceback
from collections.abc import Callable
from pathlib import Path

os.environ.setdefault("FEDBATCH_CACHE", tempfile.mkdtemp())

import torch

from benchmarks.gpu_findings import Check, config_of, in_words
from benchmarks.gpu_right import correctness, memory, whole_runs, without_polars
from benchmarks.gpu_speed import sizes, table, waits
from fedbatch.setup.device import prepare


def environment(check: Check) -> None:
    """The card and its software."""
    free, total = torch.cuda.mem_get_info()
    check.say(
        "environment",
        card=torch.cuda.get_device_name(),
        torch=torch.__version__,
        cuda=torch.version.cuda,
        free_gib=free / 2**30,
        total_gib=total / 2**30,
        budget_gib=(check.budget() or 0) / 2**30,
    )


NEED_A_GPU = (environment, waits, memory, sizes)
SECTIONS: dict[Callable[[Check], None], float] = {
    environment: 0.02,
    whole_runs: 0.25,
    correctness: 0.4,
    waits: 0.5,
    memory: 0.55,
    table: 0.78,
    sizes: 1.0,
}
"""In their order, and the share of all seconds by which each has to end."""


def main() -> int:
    """Run the sections; the number of findings that fail."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.gpu_check", description=__doc__)
    parser.add_argument("--out", type=Path, default=Path("."))
    parser.add_argument("--seconds", type=float, default=440)
    parser.add_argument("--only", default="", help="sections, with commas between")
    parser.add_argument("--device", default="cuda")
    arguments = parser.parse_args()
    check = Check(arguments.device, arguments.seconds, arguments.out)
    prepare(config_of(arguments.device))
    with without_polars():
        for section, share in SECTIONS.items():
            if arguments.only and section.__name__ not in arguments.only.split(","):
                continue
            if section in NEED_A_GPU and not check.is_gpu:
                continue
            check.deadline = check.begun + share * arguments.seconds
            try:
                section(check)
            except Exception as error:
                traceback.print_exc()
                check.say(section.__name__, FAILS=in_words(error))
            (check.out / "gpu_check.json").write_text(json.dumps(check.found, indent=1, default=str) + "\n")
    fails = [(name, finding) for name, findings in check.found.items() for finding in findings if "FAILS" in finding]
    print(f"{len(fails)} findings fail", *(f"  {name}: {finding}" for name, finding in fails), sep="\n")
    return min(len(fails), 1)


if __name__ == "__main__":
    sys.exit(main())
