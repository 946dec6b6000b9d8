"""Two hospitals, each with its own data on its own SuperNode, train one model through a SuperLink.

    make deploy-demo                                   TLS, and only SuperNodes whose key is registered
    python -m simulations.deployment --plain           neither
    python -m simulations.deployment --masked          instead, three SuperNodes whose sums the server never sees
    python -m simulations.deployment rounds=10 server_optimizer.lr=0.05

All on this machine, as processes that end with the run, however it ends.
"""

import argparse
import os
import signal
import sys
import tempfile
from collections.abc import Callable, Mapping
from pathlib import Path

from fedbatch.cli.run import report
from fedbatch.config.compose import config_json
from fedbatch.config.explain import explain
from fedbatch.config.schema import from_json
from fedbatch.core.errors import ConfigError, RunFailedError
from fedbatch.setup.validate import validate
from simulations.deployment.federation import loopback
from simulations.deployment.hospitals import FEATURES, write_hospitals

RUN_DIR = Path("runs/deployment")
Demo = tuple[list[Mapping[str, int | str]], list[str]]
"""The node-config of each SuperNode, and overrides of the run."""


def main() -> int:
    """Run the demonstration; 0 done, 1 the run failed, 2 the config cannot work."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--plain", action="store_true", help="without TLS and keys")
    parser.add_argument("--masked", action="store_true", help="secure aggregation, between three SuperNodes")
    parser.add_argument("overrides", nargs="*", help="as for fedbatch, e.g. rounds=10")
    arguments = parser.parse_args()
    os.environ["HF_DATASETS_DISABLE_PROGRESS_BARS"] = "1"  # read when the data sets are
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))  # as Ctrl-C: through the blocks that end the processes
    try:
        deploy(arguments.overrides, masked if arguments.masked else hospitals, secure=not arguments.plain)
    except ConfigError as error:
        print(f"deployment: {explain(error)}", file=sys.stderr)
        return 2
    except RunFailedError as error:
        print(f"deployment: {error}", file=sys.stderr)
        return 1
    return 0


def deploy(extra: list[str], made: Callable[[Path], Demo], *, secure: bool) -> None:
    """Bring the federation up, run, show the table, take it down."""
    folder = RUN_DIR.absolute()
    with tempfile.TemporaryDirectory() as name:
        private = Path(name)
        nodes, own = made(private)
        overrides = " ".join([f"run_dir={folder}", "controller=fixed", "evaluate_every_rounds=1", *own, *extra])
        validate(from_json(config_json({"overrides": overrides})))
        logs = folder / "logs"
        logs.mkdir(parents=True, exist_ok=True)
        with loopback(private, logs, nodes, secure=secure) as federation:
            kind = "TLS, registered SuperNodes only" if secure else "plain"
            print(f"SuperLink at {federation.address} ({kind}), {len(nodes)} SuperNodes; logs in {logs}", flush=True)
            federation.run(overrides)
    report(folder)


def hospitals(folder: Path) -> Demo:
    """Each of two nodes has a folder of data of its own; the server has one to test on."""
    server, *own = write_hospitals(folder)
    return [{"partition-id": index, "num-partitions": 2, "data": str(data)} for index, data in enumerate(own)], [
        *("dataset=hugging_face", f"dataset.source={server}", f"dataset.input_column=[{','.join(FEATURES)}]"),
        *("population=2", "nodes=2", "sampling=all", "cohort_size=2", "client_batch_size=64"),
        *("model=logistic", "rounds=4"),
    ]


def masked(_: Path) -> Demo:
    """Three nodes with four clients each add shares of noise and mask their sums."""
    return [{"partition-id": index, "num-partitions": 3} for index in range(3)], [
        *("privacy=example_distributed", "privacy.secure_aggregation=masked", "privacy.quantum=0.001"),
        *("population=12", "nodes=3", "cohort_size=12", "rounds=3", "sampling=all"),
    ]


if __name__ == "__main__":
    sys.exit(main())
