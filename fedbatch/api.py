"""A run from Python, without a command line or another process."""

import logging
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import datetime
from functools import cached_property
from itertools import count
from pathlib import Path
from typing import TYPE_CHECKING, Any

from hydra.errors import HydraException
from omegaconf.errors import OmegaConfBaseException

from fedbatch.config import given, trust
from fedbatch.config.compose import composed, groups
from fedbatch.config.schema import RunConfig, parse
from fedbatch.core.errors import ConfigError
from fedbatch.core.files import from_json
from fedbatch.results.continued import continued
from fedbatch.results.folder import begun_values

if TYPE_CHECKING:
    import polars as pl
    from flwr.serverapp import Grid
    from torch import nn

    from fedbatch.results.plan import Plan


@dataclass(frozen=True)
class Result:
    """A run that has ended.

    Attributes:
        folder: the run folder.
        summary: what ``summary.json`` says, e.g. ``summary["test_accuracy"]``.
        objects: parts that were given as objects.
    """

    folder: Path
    summary: dict[str, Any]
    objects: Mapping[str, Any] = field(default_factory=dict, repr=False)

    @cached_property
    def rounds(self) -> "pl.DataFrame":
        """The record: one row a round."""
        import polars as pl

        return pl.read_parquet(self.folder / "rounds.parquet")

    @cached_property
    def model(self) -> "nn.Module":
        """The trained model, in evaluation mode; see `fedbatch.load_model`."""
        from fedbatch.trained import load_model

        return load_model(self.folder, **self.objects)


def run(*overrides: str, grid: "Grid | None" = None, progress: bool = False, **values: Any) -> Result:
    """Run what ``fedbatch OVERRIDES`` would run, in this process.

    Args:
        overrides: as on the command line, e.g. ``"model=cnn"``, ``"server_optimizer.lr=0.05"``.
        grid: a Flower Grid whose nodes run `fedbatch.client_app`; None builds what ``runtime`` says.
        progress: show rounds as they are done.
        values: keys of the config, e.g. ``rounds=50``, ``model="cnn"``, ``noise_scale={"halves": True}``. A part can be
            an object of your own: ``dataset`` a `fedbatch.data.Dataset` or a function that gives one, ``model`` a
            module or a function that builds one, ``loss`` a function ``loss(logits, labels)``, and so on. Objects live
            in this process only: nodes in other processes, and a later resume, need them by name.

    Raises:
        ConfigError: the run cannot start; one line that names the key and the remedy.
        RunFailedError: it cannot go on; the record so far is in the run folder.
    """
    objects, plain = given.sorted_out(values)
    with quiet(not progress), given.kept(objects):
        config = configured(overrides, plain)
        try:
            execute(config, grid)
        finally:
            from fedbatch.setup.task import forget

            forget()
    folder = Path(config.run_dir)
    return Result(folder, from_json((folder / "summary.json").read_bytes()), objects)


def plan(*overrides: str, norm: float | None = None, measured_in: str | Path | None = None, **values: Any) -> "Plan":
    """What ``fedbatch plan OVERRIDES`` says: the noise that a private run needs for its target, and what to choose.

    For batches that double, and from a quarter to four times the rounds. Nothing is trained, and no file is written.

    Args:
        overrides: as in `run`.
        norm: length of a typical contribution, at most of which they spread; it sets the sampling noise.
        measured_in: a run folder, whose noise scale gives the spread instead. With neither, contributions are taken to
            be as long as the clip norm.
        values: as in `run`.

    Raises:
        ConfigError: no privacy, no target, or what the run itself would refuse.

    >>> plan("privacy=client_central").choice.cohort_size       # doctest: +SKIP
    25
    """
    from fedbatch.results.plan import measured_spread, plan_of
    from fedbatch.setup.planning import question_of
    from fedbatch.setup.task import forget

    if norm is not None and measured_in is not None:
        raise ConfigError("norm and run both give the spread; give one of them")
    objects, plain = given.sorted_out(values)
    with quiet(True), given.kept(objects):
        question = question_of(configured(overrides, plain))
        forget()
    spread, spread_is = norm, "of contributions of the given length, at most"
    if measured_in is not None:
        spread = measured_spread(Path(measured_in), question.terms.mechanism.unit)
        spread_is = f"measured in {measured_in}"
    if spread is None:
        spread_is = "of contributions as long as the clip norm, at most"
    return plan_of(question, spread, spread_is, planned_overrides(overrides, plain, not question.other_phases))


def planned_overrides(overrides: tuple[str, ...], values: Mapping[str, Any], is_fixed: bool) -> list[str]:
    """The overrides of a config, with a fixed controller, but for what a plan proposes."""
    plain = [f"{key}={'null' if value is None else value}" for key, value in values.items() if given.is_plain(value)]
    sizes = ("cohort_size", "client_batch_size")
    ours = {*sizes, *(f"controller.phase.{size}" for size in sizes), "rounds", "run_dir", "privacy.noise_multiplier"}

    def is_kept(override: str) -> bool:
        key = override.lstrip("+").partition("=")[0]
        return key not in ours and (is_fixed or key.partition(".")[0] != "controller")

    return [*filter(is_kept, (*overrides, *plain)), *([] if is_fixed else ["controller=fixed"])]


def execute(config: RunConfig, grid: "Grid | None" = None) -> None:
    """Run a checked config on a grid, or where its ``runtime`` says."""
    from fedbatch import client_app, server_app
    from fedbatch.config.build import build
    from fedbatch.runtime.flower import serve
    from fedbatch.setup import validate

    run_config = {"config": config.to_json()}
    if grid is not None:
        serve(server_app.main, grid, run_config)
        return
    validate.validate(config)
    build("runtime", config.runtime)(server_app.main, client_app.app, config.nodes, run_config)


def configured(overrides: tuple[str, ...], values: Mapping[str, Any]) -> RunConfig:
    """The checked config of a run, in a folder of its own where none is named.

    Raises:
        ConfigError: an override or a key that is wrong.
    """
    choices = [f"{key}={value}" for key, value in values.items() if isinstance(value, str) and key in groups()]
    others = {key: value for key, value in values.items() if f"{key}={value}" not in choices}
    try:
        whole = composed([*overrides, *choices], others)
    except (HydraException, OmegaConfBaseException) as error:
        from fedbatch.config.explain import explain

        raise ConfigError(explain(error)) from error
    changed = [override.lstrip("+~").split("=")[0] for override in overrides] + list(values)
    if whole["resume"] is not None:
        whole["run_dir"] = str(whole["resume"])
        folder = Path(whole["run_dir"])
        same = saved_objects(folder, whole)
        return continued(folder, [key for key in changed if key not in same], whole, trust.named(values))
    if "run_dir" not in changed:
        whole["run_dir"] = str(unused(Path("runs", datetime.now().strftime("%Y-%m-%d_%H-%M-%S"))))
    return parse(whole)


def saved_objects(folder: Path, values: Mapping[str, Any]) -> list[str]:
    """Keys of objects that are the ones with which the run in ``folder`` began."""
    try:
        old = begun_values(folder)
    except ConfigError:  # `continued` says it
        return []
    return [key for key, value in values.items() if isinstance(value, Mapping) and value == old.get(key)]


def unused(folder: Path) -> Path:
    """The folder, or one beside it that is not there yet."""
    names = (folder if i == 0 else folder.with_name(f"{folder.name}-{i}") for i in count())
    return next(name for name in names if not name.exists())


@contextmanager
def quiet(asked: bool) -> Iterator[None]:
    """Show no progress inside the block, unless logging of fedbatch was set up."""
    log = logging.getLogger("fedbatch")
    before = log.level
    if asked and before == logging.NOTSET:
        log.setLevel(logging.WARNING)
    try:
        yield
    finally:
        log.setLevel(before)
