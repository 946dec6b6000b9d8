"""Does the noise scale at the goal predict the critical batch of a game?

    python -m simulations.cartpole             three and a half minutes of CPU time
    python -m simulations.cartpole --quick     three batches, four learners, one goal, under a minute

After McCandlish et al. 2018, who read it off games. REINFORCE learns CartPole; a batch is of episodes. For each batch
and goal the rate is walked with learners of its own, and thirty others are reported. Compared are B_crit fitted to the
steps to a goal and the noise scale there. Writes docs/results/cartpole.parquet and .md, and docs/figures/cartpole.png.
"""

import math
import sys
from dataclasses import dataclass
from functools import cache, partial
from typing import Any

import numpy as np
import polars as pl

from fedbatch.core.random import generator
from simulations.cartpole_policy import LONGEST, Episodes, Floats, followed, gradients, play, started
from simulations.cartpole_report import markdown, save_figure
from simulations.goals import Curve, steps_to
from simulations.steps_to_goal import TUNING_SEED, arrival
from simulations.study import command
from simulations.tuning import tuned

SUMMARY = __doc__.splitlines()[0]
EPISODES = 64
"""Over which returns are averaged before a goal is read off, about; half-life of the baseline."""


@dataclass(frozen=True)
class Form:
    """One form of the study: batches in episodes, goals (`missed` steps, falling), learners, and updates at most."""

    batches: tuple[int, ...]
    goals: tuple[float, ...]
    learners: int
    tuners: int
    rate: float
    updates: tuple[int, int]


FULL = Form((4, 16, 64, 256), (151.0, 101.0, 51.0), 30, 10, 0.002, (15, 100))
QUICK = Form((8, 32, 128), (151.0,), 4, 3, 0.002, (12, 50))


def main(arguments: list[str] | None = None) -> None:
    """Tune, play, write the table and the figure."""
    with command("cartpole", SUMMARY, "three batches, four learners, one goal", arguments) as study:
        form = QUICK if study.quick else FULL
        rows = pl.DataFrame([row for goal in form.goals for row in of_goal(form, goal)])
        study.save(rows)
        study.tell(markdown(rows))
        save_figure(rows, study.figure())


def of_goal(form: Form, goal: float) -> list[dict[str, Any]]:
    """A row for each batch and learner that is reported, at the batch's best rate for this goal."""
    about = {"task": "CartPole", "tokens": 1, "examples": math.inf, "tuning": False, "goal": goal}
    rows, rate = list[dict[str, Any]](), form.rate
    for batch in form.batches:
        rate = tuned(partial(cost, form, goal, batch), rate)
        curves = enumerate(learn(batch, rate, form.learners, 0, form))
        rows += [about | {"batch": batch, "rate": rate, "seed": n} | arrival(own, goal, math.inf) for n, own in curves]
    return rows


def cost(form: Form, goal: float, batch: int, rate: float) -> float:
    """Steps to a goal, geometric mean over learners that are not reported; those who do not arrive count twice."""
    steps = np.array([steps_to(goal, curve) for curve in learn(batch, rate, form.tuners, TUNING_SEED, form)])
    late = np.where(np.isnan(steps), 2.0 * longest(form, batch), steps)
    found = float(np.exp(np.log(late).mean()))
    print(f"goal {goal:g}, batch {batch}, rate {rate:.3g}: {found:.1f} steps", file=sys.stderr, flush=True)
    return found


def longest(form: Form, batch: int) -> int:
    """Updates after which learners give up."""
    least, critical = form.updates
    return int(5 * least * (1 + critical / batch))


@cache
def learn(batch: int, rate: float, learners: int, seed: int, form: Form) -> list[Curve]:
    """Curves of learners side by side, until all are well beyond the last goal; a loss is `missed` steps."""
    draws, parameters = generator(seed, "cartpole", batch), started(learners, seed)
    baseline, block = np.zeros((LONGEST, learners)), max(1, EPISODES // batch)
    losses, traces, grad_sqs = list[Floats](), list[Floats](), list[Floats]()
    while len(losses) < longest(form, batch):
        episodes = play(parameters, batch, draws)
        mean, trace, grad_sq = moments(gradients(parameters, episodes, baseline))
        traces.append(trace)
        grad_sqs.append(grad_sq)
        losses.append(missed(episodes))
        parameters = parameters + rate * mean
        baseline = followed(baseline, episodes, EPISODES)
        lately = np.mean(losses[-2 * block :], axis=0)
        if len(losses) > 3 * block and (lately < 0.8 * form.goals[-1]).all():
            break
    whole = len(losses) // block * block
    blocks = np.asarray(np.array(losses[:whole]).reshape(-1, block, learners).mean(axis=1), np.float64)
    updates, values = np.array((np.arange(len(blocks)) + 0.5) * block), (np.array(traces), np.array(grad_sqs))
    return [Curve(updates, blocks[:, own], *(value[:, own] for value in values)) for own in range(learners)]


def moments(each: Floats) -> tuple[Floats, Floats, Floats]:
    """Mean gradient (L, P) of gradients (L, B, P), and unbiased tr(Sigma) and |G|^2 (L,)."""
    batch, mean = each.shape[1], np.asarray(each.mean(axis=1), np.float64)
    trace = np.square(each - mean[:, None]).sum(axis=(1, 2)) / (batch - 1)
    return mean, trace, np.square(mean).sum(axis=1) - trace / batch


def missed(episodes: Episodes) -> Floats:
    """Steps (L,) that episodes fall short of the longest on average, plus one: a loss that is positive."""
    return np.asarray(LONGEST + 1 - episodes.alive.sum(axis=0).mean(axis=1), np.float64)


if __name__ == "__main__":
    main()
