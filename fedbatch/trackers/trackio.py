"""Trackio of Hugging Face: a local store and a page of one's own machine, without an account."""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager, redirect_stdout
from pathlib import Path
from typing import Any

from fedbatch.results.folder import leaves
from fedbatch.trackers.following import Log, Row, need, scalars


class Trackio:
    """Logs to Trackio's own store, where ``trackio show --project fedbatch`` finds all runs.

    Args:
        project: its name in Trackio.
    """

    def __init__(self, project: str = "fedbatch"):
        need("trackio", "trackio")
        self._project = project

    @contextmanager
    def following(self, folder: Path, config: Mapping[str, Any], from_round: int) -> Iterator[Log]:
        """One run of Trackio, named after the run's folder; steps are rounds that are done."""
        import trackio

        values = {**dict(leaves(config)), "from_round": from_round}
        with redirect_stdout(None):  # it says that it sends, though it only writes
            begun = trackio.init(project=self._project, name=folder.name, config=values, embed=False)

        def write(row: Row) -> None:
            begun.log(scalars(row), step=row["rounds"])

        try:
            yield write
        finally:
            with redirect_stdout(None):
                trackio.finish()
