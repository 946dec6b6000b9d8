"""The console script: compose, validate, run, report.

Hydra owns the command line (groups, sweeps, ``--cfg``, completion). What fedbatch adds is that a mistake in it is one
line and exit code 2. Heavy imports wait until the config is known to be good.
"""

import logging
import os
import signal
import sys
import traceback
import warnings
from itertools import pairwise
from pathlib import Path
from typing import Any, NoReturn

import hydra
from hydra.core.hydra_config import HydraConfig
from hydra.errors import HydraException
from hydra.types import RunMode
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from fedbatch.compose import config_dir
from fedbatch.config import CONTINUED, RunConfig, parse
from fedbatch.errors import ConfigError, Interrupted, RunFailedError
from fedbatch.explain import empty_choices, explain, wrong_folder
from fedbatch.interrupt import ending_at_once
from fedbatch.report.at_end import forget, write_reports


def main() -> None:
    """Entry point of the ``fedbatch`` command."""
    # More than one thread that waits by spinning costs tens of times the work itself on a busy machine; read by
    # OpenMP when torch is imported.
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
    os.environ.setdefault("FLWR_TELEMETRY_ENABLED", "0")
    os.environ["HYDRA_FULL_ERROR"] = "1"  # so that errors reach the handlers below
    logging.basicConfig(format="%(message)s", stream=sys.stdout)
    logging.getLogger("fedbatch").setLevel(logging.INFO)
    logging.getLogger("hydra.utils").setLevel(logging.CRITICAL)  # says in four lines what is told in one
    warnings.formatwarning = lambda message, *_, **__: f"fedbatch: {message}\n"  # one line, without its source
    if sys.argv[1:] in (["--help"], ["-h"]):
        print(help_page())
        return
    if sys.argv[1:2] and sys.argv[1] in COMMANDS:
        sys.exit(COMMANDS[sys.argv[1]](sys.argv[2:]))
    if problem := empty_choices(sys.argv[1:]) or wrong_folder(sys.argv[1:]):
        refuse(ConfigError(problem))
    make_importable(sys.argv[1:])
    # argparse takes positional arguments from one place only; Hydra's users write overrides before and after -m.
    sys.argv[1:] = sorted(sys.argv[1:], key=lambda arg: "=" in arg and not arg.startswith("-"))
    sys.argv += [f"run_dir={arg.removeprefix('resume=')}" for arg in sys.argv if arg.startswith("resume=")]
    try:
        with ending_at_once():
            _main()
    except (ConfigError, HydraException, OmegaConfBaseException) as error:
        refuse(error)
    except RunFailedError as error:  # after the other runs of a sweep, which Hydra lets finish
        print(f"fedbatch: {error}; the record so far is in the run folder", file=sys.stderr)
        sys.exit(1)
    except OSError as error:  # before Hydra has a run folder
        stop(error, None)
    except KeyboardInterrupt as end:
        number = end.signal if isinstance(end, Interrupted) else signal.SIGINT
        folder = end.folder if isinstance(end, Interrupted) else None
        print("; ".join(filter(None, ["fedbatch: interrupted", go_on(folder)])), file=sys.stderr)
        sys.exit(128 + number)
    except Exception as error:  # a fault of fedbatch or of a part of one's own that nothing foresaw
        fault(error)
    finally:
        write_reports()


@hydra.main(config_path=config_dir(), config_name="config", version_base="1.3")
def _main(composed: DictConfig) -> float | None:
    folder, in_sweep = Path(HydraConfig.get().runtime.output_dir), HydraConfig.get().mode is RunMode.MULTIRUN
    try:
        config = resolve(composed, folder)
        from fedbatch.build import validate

        validate(config)
        from fedbatch.results.folder import refuse_used, summary_of
        from fedbatch.results.lock import locked

        if in_sweep:
            from fedbatch.results.sweep import finished_before, placed

            if (earlier := finished_before(config)) is not None:
                print(f"{earlier}: finished before, left as it is")
                return summary_of(earlier).get(config.target_metric)
            config = placed(config)
        with locked(Path(config.run_dir)):  # the run itself will ask again, after what takes its time
            if not config.resume and not config.overwrite:
                refuse_used(Path(config.run_dir))
        from fedbatch import task

        task.load(config.to_json())  # what only torch can refuse, before the rest is imported
        from fedbatch.run import run

        return run(config).get(config.target_metric)
    except ConfigError as error:
        if folder.is_dir() and not any(folder.iterdir()):
            folder.rmdir()
        if in_sweep:
            raise  # when the others are through, as Hydra has it
        forget()  # the folder may be another's
        refuse(error)
    except OSError as error:
        stop(error, folder)


def make_importable(arguments: list[str]) -> None:
    """Let the current folder and that of ``--config-dir`` hold modules of one's own, in processes started here too."""
    given = [argument.partition("=")[2] for argument in arguments if argument.startswith("--config-dir=")]
    given += [after for name, after in pairwise(arguments) if name in ("--config-dir", "-cd")]
    for place in [*(os.path.abspath(folder) for folder in given), os.getcwd()]:
        if place not in sys.path:
            sys.path.insert(0, place)
            os.environ["PYTHONPATH"] = os.pathsep.join(filter(None, [place, os.environ.get("PYTHONPATH")]))


def help_page() -> str:
    """What Hydra prints for ``--help``, from the same template; Hydra needs twice the time to list the groups."""
    folder = Path(config_dir())
    groups = [
        f"{group.name}: {', '.join(sorted(path.stem for path in group.glob('*.yaml')))}"
        for group in sorted(folder.iterdir())
        if group.is_dir()
    ]
    template = str(OmegaConf.load(folder / "config.yaml").hydra.help.template)
    return template.replace("$APP_CONFIG_GROUPS", "\n".join(groups) + "\n")


def status(folders: list[str]) -> int:
    """``fedbatch status FOLDER...``: 0, or 2 where there is no run."""
    from rich.console import Console

    from fedbatch.results.status import status_table

    try:
        for folder in folders or ["runs"]:
            Console().print(status_table(folder))
    except FileNotFoundError as error:
        print(f"fedbatch: status: {error}", file=sys.stderr)
        return 2
    return 0


def report(folders: list[str]) -> int:
    """``fedbatch report RUN_OR_SWEEP...``: one page on them all; 0, or 2 where there is no run."""
    from fedbatch.report.page import told, write_report

    try:
        print(told(write_report([Path(folder) for folder in folders or ["runs"]])))
    except FileNotFoundError as error:
        print(f"fedbatch: report: {error}", file=sys.stderr)
        return 2
    return 0


def doctor(_: list[str]) -> int:
    """``fedbatch doctor``: what is there, and how to get what is missing."""
    from rich.console import Console

    from fedbatch.doctor import tables

    logging.getLogger("fedbatch").setLevel(logging.WARNING)  # data sets say what they left out
    for table in tables():
        Console().print(table, "", highlight=False)
    return 0


def critical(arguments: list[str]) -> int:
    """``fedbatch critical RUN...``: what one run says of other batch sizes; 0, or 2 where it says nothing."""
    from fedbatch.results.critical_command import main

    return main(arguments)


COMMANDS = {"status": status, "report": report, "critical": critical, "doctor": doctor}


def stop(error: OSError, folder: Path | None) -> NoReturn:
    """Say what the disk or the folder would not do, in one line, and exit with 1; checkpoints are as they were."""
    print(
        f"fedbatch: {error.filename2 or error.filename or folder or 'run folder'}: {error.strerror or error}; "
        f"when that is mended, {go_on(folder) or 'start again'}",
        file=sys.stderr,
    )
    raise SystemExit(1)


def go_on(folder: Path | None) -> str:
    """How to go on with a run that has a checkpoint; empty without."""
    from fedbatch.results.folder import resume_command

    if folder is None or not any(folder.glob("checkpoints/round-*.ckpt")):
        return ""
    return f"go on with {resume_command(folder)}"


def fault(error: Exception) -> NoReturn:
    """Say in one line what nobody foresaw, keep the traceback in a file, and exit with 1."""
    log = Path("fedbatch-error.log")
    log.write_text("".join(traceback.format_exception(error)))
    text = " ".join(str(error).split())
    print(f"fedbatch: internal error, {type(error).__name__}: {text}; where it happened is in {log}", file=sys.stderr)
    raise SystemExit(1)


def refuse(error: Exception) -> NoReturn:
    """Say what is wrong in one line and exit with 2."""
    print(f"fedbatch: {explain(error)}", file=sys.stderr)
    raise SystemExit(2)


def resolve(composed: DictConfig, folder: Path) -> RunConfig:
    """The config of this run: as composed, or as the resumed run had it."""
    try:
        values: Any = OmegaConf.to_container(composed, resolve=True)
    except OmegaConfBaseException as error:
        raise ConfigError(explain(error)) from error
    values["run_dir"] = str(folder)
    if values["resume"] is None:
        return parse(values)
    if not values["resume"]:
        raise ConfigError("resume must be the folder of an earlier run (got '')")
    if values["overwrite"]:
        raise ConfigError("resume goes on with a run and overwrite=true deletes it; give one of the two")
    from fedbatch.results.folder import begun_values

    try:
        old = values | begun_values(folder)  # a key that was not there yet has its default
    except ConfigError as error:
        raise ConfigError(f"resume: {error}") from error
    changed = [override.lstrip("+").split("=")[0] for override in HydraConfig.get().overrides.task]
    for name in changed:
        if name.split(".")[0] not in CONTINUED:
            raise ConfigError(f"{name} cannot change when a run is resumed; start a new run instead")
    if (
        "rounds" in changed
        and (old["privacy"] or {}).get("target_epsilon") is not None
        and values["rounds"] != old["rounds"]
    ):
        raise ConfigError(
            f"rounds cannot change on resume: privacy.target_epsilon was planned for {old['rounds']} rounds"
        )
    for name in ("rounds", "nodes"):
        if name in changed and old["active"] and values[name] != old[name]:
            raise ConfigError(
                f"{name} cannot change on resume: queries are planned for {old['rounds']} rounds, and each of the "
                f"{old['nodes']} nodes keeps its clients' labels"
            )
    given = {name.split(".")[0] for name in changed} | {"resume", "run_dir"}
    try:
        return parse(old | {name: values[name] for name in given})
    except ConfigError as error:
        raise ConfigError(f"resume: {folder / 'config.yaml'}: {error}") from error


if __name__ == "__main__":
    main()
