"""The console script: compose, validate, run, report.

Hydra owns the command line (groups, sweeps, ``--cfg``, completion). What fedbatch adds is that a mistake in it is one
line and exit code 2. Heavy imports wait until the config is known to be good.
"""

import gc
import logging
import os
import signal
import sys
import traceback
import warnings
from collections.abc import Mapping
from itertools import pairwise
from pathlib import Path
from typing import Any, NoReturn

import hydra
from hydra.core.hydra_config import HydraConfig
from hydra.errors import HydraException
from hydra.types import RunMode
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

import fedbatch
from fedbatch.cli.commands import COMMANDS, run_command, without_trust
from fedbatch.cli.unbroken import Unbroken
from fedbatch.config.compose import config_dir, groups, refuse_unknown_choices
from fedbatch.config.explain import dashed, empty_choices, explain, wrong_folder
from fedbatch.config.schema import RunConfig, parse
from fedbatch.core.errors import ConfigError, Interrupted, RunFailedError
from fedbatch.core.interrupt import ending_at_once
from fedbatch.core.visible import visible
from fedbatch.report.at_end import forget, write_reports


def main() -> None:
    """Entry point of the ``fedbatch`` command."""
    gc.set_threshold(100_000)  # imports make objects that stay: looking for garbage among them was a ninth of start-up
    # More than one thread that waits by spinning costs tens of times the work itself on a busy machine; read by
    # OpenMP when torch is imported.
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
    os.environ["HYDRA_FULL_ERROR"] = "1"  # so that errors reach the handlers below
    sys.stdout = Unbroken(sys.stdout)
    logging.basicConfig(format="%(message)s", stream=sys.stdout)
    logging.getLogger("fedbatch").setLevel(logging.INFO)
    logging.getLogger("hydra.utils").setLevel(logging.CRITICAL)  # says in four lines what is told in one
    warnings.formatwarning = lambda message, *_, **__: f"fedbatch: {message}\n"  # one line, without its source
    if sys.argv[1:] in (["--help"], ["-h"]) or (sys.argv[1:2] and sys.argv[1] in COMMANDS):
        signal.signal(signal.SIGPIPE, signal.SIG_DFL)  # "| head" ends a command; a run goes on
    if sys.argv[1:] in (["--help"], ["-h"]):
        print(help_page())
        return
    if sys.argv[1:] == ["--version"]:
        print(f"fedbatch {fedbatch.__version__}")
        return
    if sys.argv[1:2] and sys.argv[1] in COMMANDS:
        make_importable(sys.argv[2:])
        sys.exit(run_command(*sys.argv[1:]))
    try:
        sys.argv[1:], trusted = without_trust(sys.argv[1:])
    except ConfigError as error:
        refuse(error)
    sys.argv += [f"trust=[{','.join(trusted)}]"] if trusted else []
    if problem := empty_choices(sys.argv[1:]) or wrong_folder(sys.argv[1:]) or dashed(sys.argv[1:]):
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
        failed(error)
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


def reached(summary: Mapping[str, Any], metric: str) -> float | None:
    """What a sweep compares runs by: the target metric, or the score of a task that has no such column."""
    from fedbatch.core.scores import score_of

    return summary.get(metric, summary.get(score_of(summary)))


@hydra.main(config_path=config_dir(), config_name="config", version_base="1.3")
def _main(composed: DictConfig) -> float | None:
    folder, in_sweep = Path(HydraConfig.get().runtime.output_dir), HydraConfig.get().mode is RunMode.MULTIRUN
    try:
        config = resolve(composed, folder)
        refuse_unknown_choices(HydraConfig.get().overrides.task)
        from fedbatch.setup.validate import validate

        validate(config)
        from fedbatch.results.folder import refuse_used, summary_of
        from fedbatch.results.lock import locked

        if in_sweep:
            from fedbatch.report.sweep import choices
            from fedbatch.results.choices import write_choices
            from fedbatch.results.sweep import finished_before, placed

            if (earlier := finished_before(config)) is not None:
                print(f"{visible(earlier)}: finished before, left as it is")
                return reached(summary_of(earlier), config.target_metric)
            config = placed(config)
            write_choices(Path(config.run_dir), choices(HydraConfig.get().overrides.task))
        with locked(Path(config.run_dir)):  # the run itself will ask again, after what takes its time
            if not config.resume and not config.overwrite:
                refuse_used(Path(config.run_dir))
        from fedbatch.setup import task

        task.load(config.to_json())  # what only torch can refuse, before the rest is imported
        from fedbatch.cli.run import run

        return reached(run(config), config.target_metric)
    except ConfigError as error:
        if folder.is_dir() and not any(folder.iterdir()):
            folder.rmdir()
        if in_sweep:
            raise  # when the others are through, as Hydra has it
        forget()  # the folder may be another's
        refuse(error)
    except OSError as error:
        stop(error, folder)
    except RunFailedError as error:
        if in_sweep:
            raise
        failed(error, has_record=(folder / "rounds.jsonl").is_file())
    except Exception as error:  # here, because Hydra writes a line of its own about whatever leaves this function
        if in_sweep:
            raise
        fault(error)


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
    listed = [f"{group}: {', '.join(choices)}" for group, choices in groups().items()]
    template = str(OmegaConf.load(Path(config_dir(), "config.yaml")).hydra.help.template)
    return template.replace("$APP_CONFIG_GROUPS", "\n".join(listed) + "\n")


def stop(error: OSError, folder: Path | None) -> NoReturn:
    """Say what the disk or the folder would not do, in one line, and exit with 1; checkpoints are as they were."""
    print(
        f"fedbatch: {visible(error.filename2 or error.filename or folder or 'run folder')}: {error.strerror or error}; "
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


def failed(error: RunFailedError, has_record: bool = True) -> NoReturn:
    """Say why the run could not go on, and exit with 1."""
    where = "; the record so far is in the run folder" if has_record else ""
    print(f"fedbatch: {visible(error)}{where}", file=sys.stderr)
    raise SystemExit(1)


def fault(error: Exception) -> NoReturn:
    """Say in one line what nobody foresaw, keep the traceback in a file, and exit with 1."""
    log = Path("fedbatch-error.log")
    log.write_text("".join(traceback.format_exception(error)))
    text = " ".join(str(error).split())
    print(
        f"fedbatch: internal error, {type(error).__name__}: {visible(text)}; where it happened is in {log}",
        file=sys.stderr,
    )
    raise SystemExit(1)


def refuse(error: Exception) -> NoReturn:
    """Say what is wrong in one line and exit with 2."""
    print(f"fedbatch: {visible(explain(error))}", file=sys.stderr)
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
    from fedbatch.results.continued import continued

    changed = [override.lstrip("+").split("=")[0] for override in HydraConfig.get().overrides.task]
    return continued(folder, changed, values)


if __name__ == "__main__":
    main()
