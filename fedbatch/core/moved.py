"""Modules under the names that they had in 0.1, for people's own modules that import them.

Public names are those of packages, e.g. ``fedbatch.controllers.Phase``; use them in new code.
"""

import sys
from collections.abc import Sequence
from importlib import import_module
from importlib.abc import Loader, MetaPathFinder
from importlib.machinery import ModuleSpec
from types import ModuleType

MOVED = {
    "fedbatch.aggregate": "fedbatch.aggregation.sums",
    "fedbatch.app": "fedbatch.cli.app",
    "fedbatch.batch.controllers": "fedbatch.controllers",
    "fedbatch.batch.goodput": "fedbatch.controllers.goodput",
    "fedbatch.batch.phases": "fedbatch.controllers.phase",
    "fedbatch.batch.tracker": "fedbatch.batch.average",
    "fedbatch.build": "fedbatch.setup.validate",
    "fedbatch.clients.choose": "fedbatch.executors.choose",
    "fedbatch.clients.fused": "fedbatch.executors.fused",
    "fedbatch.clients.loop": "fedbatch.executors.loop",
    "fedbatch.clients.vmap": "fedbatch.executors.vmap",
    "fedbatch.compose": "fedbatch.config.compose",
    "fedbatch.errors": "fedbatch.core.errors",
    "fedbatch.faults": "fedbatch.runtime.faults",
    "fedbatch.keys": "fedbatch.core.random",
    "fedbatch.messages": "fedbatch.wire.messages",
    "fedbatch.robust": "fedbatch.aggregation.robust",
    "fedbatch.state": "fedbatch.server.checkpoint",
    "fedbatch.task": "fedbatch.setup.task",
    "fedbatch.time_model": "fedbatch.batch.time_model",
}


class Finder(MetaPathFinder, Loader):
    """Finds the modules of `MOVED`, as the very modules that they are now."""

    def find_spec(
        self, fullname: str, path: Sequence[str] | None = None, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        """A spec for a name of before."""
        return ModuleSpec(fullname, self) if fullname in MOVED else None

    def create_module(self, spec: ModuleSpec) -> ModuleType:
        """An empty module, which `exec_module` replaces."""
        return ModuleType(spec.name)

    def exec_module(self, module: ModuleType) -> None:
        """Put today's module in its place."""
        sys.modules[module.__name__] = import_module(MOVED[module.__name__])


def install() -> None:
    """Let names of before be found, when nothing else finds them."""
    if not any(isinstance(finder, Finder) for finder in sys.meta_path):
        sys.meta_path.append(Finder())
