"""The guarantee of a run in words, as it is printed and stored: what holds, for whom, and what is not covered."""

import math
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from fedbatch.controllers.phase import Phase
from fedbatch.privacy import accounting
from fedbatch.privacy.lattice import FAILURE
from fedbatch.privacy.ledger import FILE, Ledger
from fedbatch.privacy.plan import PrivacyPlan, default_delta

FROM_THE_SEED = (
    "noise follows from the seed, which is right for a study alone: whoever knows it can take the noise away; "
    "set privacy.secret_file for data of real people"
)
INDEPENDENT = "independent over rounds"
ROUNDED = (
    f"rounding of floating-point sums before they become integers, of the noise's probabilities to 53 bits, and, with "
    f"probability {2 * FAILURE:.0e} in each release, a change that rounding makes longer than was charged"
)


def opening(plan: PrivacyPlan, phases: Iterable[Phase], rounds: int) -> str:
    """The first line of a private run: what it may spend, and the noise of each phase that this buys.

    Args:
        plan: the run's mechanism.
        phases: all phases of the controller.
        rounds: of the run.
    """
    calibration = plan.calibration
    each = [
        f"{phase.name}: noise multiplier {plan.noise_multiplier(phase):.3g}, q {plan.terms.accounted_rate(phase):.3g}, "
        f"expected batch {plan.terms.batch(phase):,.6g} {plan.mechanism.unit}s"
        for phase in phases
    ]
    adaptive = calibration.order is not None
    why = (
        f" (enough for all {rounds:,} rounds in the costliest phase, for phases are not known yet)" if adaptive else ""
    )
    bound = f"epsilon {calibration.epsilon:.3g} at delta {plan.delta:.2g}"
    whole = f"{bound}, {plan.mechanism.unit} level{_simulated(plan)}, in {rounds:,} rounds{why}; {'; '.join(each)}"
    return f"privacy: {whole}" + (f"\n  {FROM_THE_SEED}" if plan.mechanism.secret_file is None else "")


def statement(plan: PrivacyPlan, ledger: Ledger, others: int = 0) -> dict[str, Any]:
    """The guarantee for the releases in ``ledger``, as plain values for the summary.

    Args:
        plan: the run's mechanism.
        ledger: what was released.
        others: private runs beside this one or overwritten, which it says nothing of.
    """
    mechanism, calibration = plan.mechanism, plan.calibration
    schedules = ledger.schedules()
    reading = plan.rdp_reading(ledger)
    epsilon = plan.epsilon(ledger) if calibration.order is None else calibration.epsilon
    return {
        "epsilon": epsilon,
        "epsilon_rdp": reading,
        "delta": plan.delta,
        "unit": mechanism.unit,
        "neighbours": f"data sets with one {mechanism.unit}'s contribution there or zeroed out; how many examples each "
        "client has, and how many clients there are, is public and the same in both",
        "protects_against": mechanism.against,
        "deployment": _simulated(plan).strip(" ()"),
        "sampler": f"Poisson, each {mechanism.unit} on its own{_groups(plan)}",
        "noise": _noise(plan),
        "follows_seed": plan.mechanism.secret_file is None,
        "schedule": [{"sample_rate": q, "noise_multiplier": sigma, "steps": steps} for q, sigma, steps in schedules[0]],
        "accountant": accounting.tightest(schedules, plan.delta, calibration.accountant)
        if calibration.order is None
        else f"rdp filter at order {calibration.order:g}",
        "accountant_version": accounting.version(),
        "planned_epsilon": calibration.epsilon,
        "clipping": mechanism.clipping,
        "releases": len(ledger.releases),
        "covers": "all parameters, the noise scale and the clip norm of every round, the temperature if there is one, "
        "and what follows from them",
        "not_covered": _not_covered(plan, others),
    }


def _groups(plan: PrivacyPlan) -> str:
    bands = plan.terms.bands
    return f", cyclic in {bands} groups: round t samples group t mod {bands} alone" if bands > 1 else ""


def _noise(plan: PrivacyPlan) -> str:
    bands, lattice = plan.terms.bands, plan.mechanism.lattice
    over_rounds = f"correlated over {bands} rounds (banded Toeplitz)" if bands > 1 else INDEPENDENT
    return f"{over_rounds}, {lattice.words}" if lattice else over_rounds


def spent(plan: PrivacyPlan, ledger: Ledger, others: int = 0) -> dict[str, Any]:
    """What a summary says of privacy, of whatever has been released so far."""
    guarantee = statement(plan, ledger, others)
    return {"epsilon": guarantee["epsilon"], "privacy": guarantee}


def private_runs_beside(folder: Path) -> int:
    """Private runs in the folders beside this one, as those of a sweep are, and those that were overwritten."""
    ledgers = folder.parent.glob(f"*/{Path(FILE).stem}*.jsonl")
    return sum(path != folder / FILE for path in ledgers)


def _not_covered(plan: PrivacyPlan, others: int) -> list[str]:
    """What the guarantee says nothing of: first what can be mended, or is as large as the data themselves."""
    runs, were = ("run lies", "was") if others == 1 else ("runs lie", "were")
    beside = f" ({others} private {runs} beside this one or {were} overwritten; fedbatch spent adds them up)"
    units, unit, reasons = plan.terms.units, plan.mechanism.unit, list[str]()
    if plan.mechanism.secret_file is None:
        reasons.append(
            "whoever knows the seed, or sees two runs with one seed: sampling and noise follow from it "
            "(set privacy.secret_file)"
        )
    if plan.mechanism.clips_examples:
        reasons.append(
            "all that one client has: what it reveals of n examples together grows with n (group privacy), and clients "
            f"have {plan.terms.sizes.mean():,.3g} on average; privacy=client_central protects whole clients"
        )
    if plan.delta > default_delta(units) * (1 + 1e-9):
        reasons.append(
            f"a failure of the guarantee itself with probability delta = {plan.delta:.2g}, large for {units:,} {unit}s"
        )
    if plan.mechanism.shares_noise:
        reasons.append(
            "a server that does not follow the protocol, as one that hands out keys of its own; nodes that lie"
            if plan.mechanism.masks
            else "a server that sees single replies"
        )
    if plan.mechanism.known_shares == 0:
        reasons.append(
            "a client that takes part and looks at the models: it can take its own share of the noise away (set "
            "privacy.colluders to as many as may put theirs together)"
        )
    if plan.mechanism.generator != "chacha20":
        reasons.append("attacks on the generator, which is not cryptographic (set privacy.generator=chacha20)")
    return [
        *reasons,
        "the examples of the test split: nothing protects them, their scores are exact, and so is stopping or choosing "
        "by them",
        "choosing hyperparameters by earlier runs and trials on the same data, and what those released"
        + (beside if others else ""),
        "extending the run after looking at it",
        "what was made of the data before the run: standardisation by their exact mean and deviation, lists of "
        "classes, words and columns, and the length of the longest sequence (dataset=arrays takes inputs as they are)",
        "which examples clients hold out",
        "the length of the run in rounds and whole seconds, which executor ran it, that it or a node failed or that a "
        "round was done again, and the number of examples a client has",
        "rounding of floating-point sums and noise" if plan.mechanism.lattice is None else ROUNDED,
    ]


def headline(values: dict[str, Any]) -> str:
    """A `statement` in lines: the bound, what it is of, how it was counted, and what it does not cover."""
    whose = f" ({values['deployment']})" if values.get("deployment") else ""
    bound = f"epsilon {values['epsilon']:.3g} at delta {values['delta']:.2g}, {values['unit']} level{whose}"
    spent = values["epsilon_rdp"] if "filter" in values["accountant"] else values["epsilon"]
    phases = "; ".join(
        f"q {p['sample_rate']:.3g}, noise {p['noise_multiplier']:.3g}, {p['steps']:,} steps" for p in values["schedule"]
    )
    noise = f"; noise {values['noise']}" if values.get("noise", INDEPENDENT) != INDEPENDENT else ""
    lines = [
        f"privacy: {bound}{_left(spent, values['planned_epsilon'])}, against {values['protects_against']}",
        *([f"  {FROM_THE_SEED}"] if values.get("follows_seed") else []),
        f"  neighbours: {values['neighbours']}",
        f"  sampling: {values['sampler']}: {phases}{noise}",
        f"  accountant: {values['accountant']}, {values['accountant_version']}, {values['releases']:,} releases",
        "  not covered:",
        *(f"  - {reason}" for reason in values["not_covered"]),
    ]
    return "\n".join(lines)


def _simulated(plan: PrivacyPlan) -> str:
    """Of whom the guarantee is, where it is not of the clients of this run; else nothing."""
    there = plan.terms.deployment
    if there is None:
        return ""
    return (
        f" (of a simulated deployment, {there.cohort:,} of {there.population:,} clients a round; the "
        f"{len(plan.terms.sizes):,} clients of this run are not protected by it)"
    )


def _left(spent: float, planned: float) -> str:
    """What of the plan was not spent, where that is more than rounding."""
    if not math.isfinite(planned) or spent > 0.995 * planned:
        return ""
    return f" (spent {spent:.3g} of {planned:.3g}; {planned - spent:.3g} was not spent)"
