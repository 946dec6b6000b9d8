"""``fedbatch audit [overrides]``: what an attacker finds in the run that these overrides would be."""

from collections.abc import Sequence

from rich.console import Console

from fedbatch.auditing.attack import CONTROL, Audit, Found, audit
from fedbatch.auditing.planted import CANARIES
from fedbatch.core.errors import ConfigError
from fedbatch.privacy.one_run import Guesses

OPTIONS = ("--canaries", "--no-control")


def main(arguments: Sequence[str], trust: Sequence[str] = ()) -> bool:
    """Print what was found, and whether the claim holds.

    Raises:
        ConfigError: the run claims nothing, or an argument is wrong.
    """
    overrides, number, control = _options(arguments)
    found = audit(*overrides, number=number, control=control, trust=list(trust))
    for line in lines(found):
        Console(markup=False, highlight=False).print(line, soft_wrap=True)
    return not found.audit.refuted


def lines(found: Found) -> list[str]:
    """What was found, in words."""
    audited, control = found.audit, found.control
    phases = "; ".join(f"q {q:.3g}, noise {sigma:.3g}, {steps:,} steps" for q, sigma, steps in audited.schedule)
    said = [
        f"audit: {audited.guesses.canaries:,} {audited.unit}s that are canaries, each there by a coin; {phases}",
        f"  claim        epsilon {audited.claim:.3g} at delta {audited.delta:.2g}",
        f"  guesses      {_words(audited.guesses)}",
        f"  lower bound  epsilon {audited.bound:.3g} with 95 % confidence for this kind of noise, "
        f"{audited.bound_without_shape:.3g} whatever the mechanism",
    ]
    if audited.refuted:
        said.append("The claim is refuted: this run is less private than it says. Please report it.")
    else:
        said.append(
            "Nothing was found against the claim. An audit can refute a guarantee; it cannot prove one. Its attacker "
            "does not know the seed, so that it says nothing of a run without privacy.secret_file."
        )
    return said + ([_of_control(audited, control)] if control else [])


def _of_control(audited: Audit, control: Audit) -> str:
    result = f"with a {CONTROL:g}th of the noise the same attack has {_words(control.guesses)}"
    if control.refuted:
        return f"Control: {result}, lower bound {control.bound:.3g}: it would have been caught."
    return (
        f"Control: {result}, and that is not caught: this audit is too weak to say much. "
        f"Use more canaries, e.g. --canaries {10 * audited.guesses.canaries}"
    )


def _words(guesses: Guesses) -> str:
    return ", ".join(f"{right:,} of {made:,} right" for made, right in zip(guesses.made, guesses.right, strict=True))


def _options(arguments: Sequence[str]) -> tuple[list[str], int, bool]:
    overrides, number, control = list[str](), CANARIES, True
    words = iter(arguments)
    for word in words:
        name, _, value = word.partition("=")
        if name == "--canaries":
            value = value or next(words, "")
            if not value.isdigit() or not 20 <= int(value) <= 10_000:
                raise ConfigError(f"--canaries: give a number from 20 to 10,000 (got {value!r})")
            number = int(value)
        elif word == "--no-control":
            control = False
        elif word.startswith("-"):
            raise ConfigError(f"{word} is not an option; there are {' N and '.join(OPTIONS)}")
        else:
            overrides.append(word)
    return overrides, number, control
