"""Where the time of some rounds goes, operation by operation, by PyTorch's profiler."""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from fedbatch.trackers.following import Log, Row

TABLE, TRACE = "profile.txt", "profile.json"
LINES = 40


class Profiler:
    """Profile a few rounds, as ``torch.profiler`` sees this process: nodes of ``runtime=local`` are in it.

    What is not PyTorch's is not seen: take ``executor=fused`` in the place of ``chain``, which is compiled code. A
    private run is not profiled.

    Args:
        skip: rounds before the first that is profiled, at least 1; in the first ones executors are chosen.
        rounds: that are profiled, at least 1. Their seconds in the record are longer than those of others.
    """

    def __init__(self, skip: int = 2, rounds: int = 3):
        for name, value in {"skip": skip, "rounds": rounds}.items():
            if value < 1:
                raise ValueError(f"{name} must be at least 1 (got {value})")
        self._skip, self._rounds = skip, rounds

    @contextmanager
    def following(self, folder: Path, config: Mapping[str, Any], from_round: int) -> Iterator[Log]:
        """Write ``profile.txt``, the operations that took longest, and ``profile.json`` for chrome://tracing."""
        if config["privacy"]:
            raise ValueError("how long operations take depends on data that privacy is to cover")

        import torch
        from torch.profiler import profile

        profiler, seen, running = profile(), 0, False

        def stop() -> None:
            nonlocal running
            running = False
            profiler.stop()
            averages = profiler.key_averages()
            on_device = torch.cuda.is_available() and config["device"] != "cpu"
            order = "self_device_time_total" if on_device else "self_cpu_time_total"
            (folder / TABLE).write_text(averages.table(sort_by=order, row_limit=LINES))
            profiler.export_chrome_trace(str(folder / TRACE))

        def step(row: Row) -> None:
            nonlocal seen, running
            seen += 1
            if seen == self._skip:
                profiler.start()
                running = True
            elif seen == self._skip + self._rounds:
                stop()

        try:
            yield step
        finally:
            if running:
                stop()
