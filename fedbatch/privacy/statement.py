"""The guarantee of a run in words, as it is printed and stored: what holds, for whom, and what is not covered."""

from typing import Any

from fedbatch.privacy import accounting
from fedbatch.privacy.ledger import Ledger
from fedbatch.privacy.mechanisms import ExampleDistributed
from fedbatch.privacy.plan import PrivacyPlan

AGAINST = {
    "ExampleLocal": "anyone but the example's own client, the server included",
    "ExampleDistributed": "those who see sums over clients only; this run simulates secure aggregation, it has none",
    "ClientCentral": "those who see the models; the server and its nodes are trusted with each client's update",
}


def statement(plan: PrivacyPlan, ledger: Ledger) -> dict[str, Any]:
    """The guarantee for the releases in ``ledger``, as plain values for the summary."""
    mechanism, calibration = plan.mechanism, plan.calibration
    schedules = ledger.schedules()
    reading = accounting.worst_epsilon(schedules, plan.delta, "rdp", calibration.order)
    if calibration.order is None:
        epsilon = accounting.worst_epsilon(schedules, plan.delta, calibration.accountant)
    else:
        epsilon = calibration.epsilon
    return {
        "epsilon": epsilon,
        "epsilon_rdp": reading,
        "delta": plan.delta,
        "unit": mechanism.unit,
        "neighbours": f"data sets that differ by one {mechanism.unit}, added or removed; client sizes are public",
        "protects_against": AGAINST[type(mechanism).__name__],
        "sampler": f"Poisson, each {mechanism.unit} on its own",
        "schedule": [{"sample_rate": q, "noise_multiplier": sigma, "steps": steps} for q, sigma, steps in schedules[0]],
        "accountant": calibration.accountant
        if calibration.order is None
        else f"rdp filter at order {calibration.order:g}",
        "accountant_version": accounting.version(),
        "planned_epsilon": calibration.epsilon,
        "clipping": mechanism.clipping,
        "releases": len(ledger.releases),
        "covers": "all parameters, the noise scale and the clip norm of every round, the temperature if there is one, "
        "and what follows from them",
        "not_covered": _not_covered(plan),
    }


def _not_covered(plan: PrivacyPlan) -> list[str]:
    reasons = ["choosing hyperparameters by earlier runs on the same data", "extending the run after looking at it"]
    reasons += ["rounding of floating-point sums and noise", "run times, and the number of examples a client has"]
    if plan.mechanism.secret_file is None:
        reasons.append("whoever knows the seed: sampling and noise follow from it (set privacy.secret_file)")
    if plan.mechanism.generator != "chacha20":
        reasons.append("attacks on the generator, which is not cryptographic (set privacy.generator=chacha20)")
    if isinstance(plan.mechanism, ExampleDistributed):
        reasons.append("a server that sees single replies")
    return reasons


def headline(values: dict[str, Any]) -> str:
    """One paragraph of a `statement`."""
    bound = f"epsilon {values['epsilon']:.3g} at delta {values['delta']:.2g}, {values['unit']} level"
    spent = f" (filter reading {values['epsilon_rdp']:.3g})" if "filter" in values["accountant"] else ""
    phases = "; ".join(
        f"q {p['sample_rate']:.3g}, noise {p['noise_multiplier']:.3g}, {p['steps']:,} steps" for p in values["schedule"]
    )
    return (
        f"privacy: {bound}{spent}, against {values['protects_against']}\n"
        f"  {values['neighbours']}; {values['sampler']}: {phases}\n"
        f"  {values['accountant']}, {values['accountant_version']}, {values['releases']:,} releases\n"
        f"  not covered: {'; '.join(values['not_covered'])}"
    )
