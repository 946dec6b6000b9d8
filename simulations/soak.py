"""A long run in one process: do memory and open files stay where they are?

    python -m simulations.soak                  1,000 rounds on digits, about ten seconds
    python -m simulations.soak --rounds 10000

Rounds before --warm-up fill caches and are not counted. Reads /proc, so Linux only. The exit code is 1 where resident
memory grew by more than 2 % or a descriptor was left open.
"""

import argparse
import os
import sys
import tempfile
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")  # before torch is imported, as the fedbatch command does

from flwr.app import Message

from fedbatch import client_app, server_app
from fedbatch.config.compose import config_json
from fedbatch.runtime.flower import SERVER_NODE_ID, new_context
from fedbatch.runtime.local import LocalGrid

SMALL = "dataset=digits population=20 cohort_size=8 model.width=32 controller=fixed nodes=4 checkpoint_every_rounds=10"
MOST_GROWTH = 0.02


class WatchedGrid(LocalGrid):
    """A grid that notes resident bytes and open descriptors at the start of each round."""

    def __init__(self, num_nodes: int, run_config: dict[str, Any]):
        super().__init__(client_app.app, num_nodes, run_config)
        self.seen: list[tuple[int, int]] = []

    def send_and_receive(self, messages: Iterable[Message], *, timeout: float | None = None) -> Iterator[Message]:
        """As in `LocalGrid`."""
        messages = list(messages)
        if messages[0].metadata.message_type == "train":
            self.seen.append((resident_bytes(), len(os.listdir("/proc/self/fd"))))
        return super().send_and_receive(messages, timeout=timeout)


def resident_bytes() -> int:
    """Memory of this process that is in RAM."""
    return int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")


def main() -> None:
    """Run, print growth, and fail where there is too much of it."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rounds", type=int, default=1000)
    parser.add_argument("--warm-up", type=int, default=100)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        run_config = {"config": config_json({"overrides": f"{SMALL} rounds={options.rounds} run_dir={folder}"})}
        grid = WatchedGrid(4, run_config)
        server_app.app(grid, new_context(grid.run.run_id, SERVER_NODE_ID, {}, run_config))
    (memory, files), (memory_after, files_after) = grid.seen[options.warm_up], grid.seen[-1]
    growth = memory_after / memory - 1
    print(f"rounds {options.warm_up} to {len(grid.seen)}: resident memory {memory / 2**20:.1f} MiB, {growth:+.2%}")
    print(f"open descriptors {files}, {files_after - files:+d}")
    sys.exit(growth > MOST_GROWTH or files_after > files)


if __name__ == "__main__":
    main()
