"""Run the app.

python -m simulations.drop_in              20 clients in this process
python -m simulations.drop_in --ray        on Flower's Ray simulation
"""

import argparse
import logging

from fedbatch.runtime.local import Local
from fedbatch.runtime.ray import Ray
from simulations.drop_in.client_app import app as client_app
from simulations.drop_in.server_app import app as server_app


def main() -> None:
    """Run, and print a line a round."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--ray", action="store_true")
    parser.add_argument("--rounds", type=int, default=10)
    parser.add_argument("--clients", type=int, default=20)
    arguments = parser.parse_args()
    logging.getLogger("flwr").setLevel(logging.ERROR)
    runtime = Ray(cpus_per_node=1.0, gpus_per_node=0.0, address=None) if arguments.ray else Local()
    runtime(server_app, client_app, arguments.clients, {"num-rounds": arguments.rounds})


if __name__ == "__main__":
    main()
