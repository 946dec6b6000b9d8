"""How the server's learning rate follows the global batch and the round."""

import math
from dataclasses import dataclass

RULES = ("constant", "sqrt", "linear", "power", "gain")
DECAYS = ("none", "cosine", "linear", "wsd")


@dataclass(frozen=True)
class LearningRate:
    """A factor on the server optimizer's learning rate: batch rule x warm-up x decay.

    Attributes:
        rule: factor between the first phase's global batch B_0 and the current B:
            "constant" 1; "sqrt" sqrt(B/B_0); "linear" B/B_0; "power" (B/B_0)^exponent; "gain" (1 + N/B_0) / (1 + N/B)
            with noise scale N, the ratio of the best learning rates at both batches (McCandlish et al. 2018, sec. 2),
            at most 1 + N/B_0.
        exponent: in [0, 1], of the rule "power"; for Adam and its kin between 0.5 and 1 (McCandlish et al. 2018).
        max_factor: cap of the rule's factor, so that lr stays below what is known to be stable.
        warmup_rounds: linear ramp from 0 at the start of the run.
        switch_warmup_rounds: linear ramp from the old to the new factor after a change of phase.
        max_growth: most by which the rule's factor may grow in a round after a change, >= 1; None for the ramp alone.
            Near the limit of stability, 2 over the curvature, a model needs many rounds to move to where curvature
            allows a higher rate, and a faster rise throws it out (Cohen et al. 2021).
        decay: to zero over the run: "none", "cosine", "linear", or "wsd", which is stable until its last part and then
            linear (warm-up, stable, decay).
        decay_share: length of that last part as a share of the run, in (0, 1].
        examples: the decay is over so many examples, wherever the batch changes, and ends the run; None is over the
            rounds of the run.
    """

    rule: str = "gain"
    exponent: float = 0.5
    max_factor: float = 2.0
    warmup_rounds: int = 0
    switch_warmup_rounds: int = 10
    max_growth: float | None = None
    decay: str = "none"
    decay_share: float = 0.2
    examples: int | None = None

    def __post_init__(self) -> None:
        if self.rule not in RULES or self.decay not in DECAYS:
            raise ValueError(f"learning_rate: rule must be one of {RULES} and decay one of {DECAYS}")
        if not 0 <= self.exponent <= 1:
            raise ValueError(f"learning_rate: exponent must be in [0, 1] (got {self.exponent})")
        if self.max_factor <= 0 or self.warmup_rounds < 0 or self.switch_warmup_rounds < 0:
            raise ValueError(
                "learning_rate: max_factor must be > 0, warmup_rounds and switch_warmup_rounds must not be negative"
            )

        if self.max_growth is not None and not self.max_growth >= 1:
            raise ValueError(f"learning_rate.max_growth must be at least 1, or null (got {self.max_growth})")
        if not 0 < self.decay_share <= 1:
            raise ValueError(f"learning_rate.decay_share must be in (0, 1] (got {self.decay_share})")
        if self.examples is not None and (self.examples < 1 or self.decay == "none"):
            raise ValueError(
                "learning_rate.examples is the length of a decay; set learning_rate.decay, or leave it null"
            )

    def batch_factor(self, size: float, base_size: float, noise_scale: float | None) -> float:
        """Factor of the batch rule, capped.

        Args:
            size: current global batch.
            base_size: global batch at which the configured lr was tuned, that of the first phase.
            noise_scale: noise scale in the unit of both, for "gain"; None counts as unknown, factor 1.

        >>> LearningRate(rule="gain", max_factor=9).batch_factor(size=300, base_size=100, noise_scale=300)
        2.0
        """
        if self.rule == "constant" or size == base_size:
            factor = 1.0
        elif self.rule == "gain":
            factor = 1.0 if noise_scale is None else (1 + noise_scale / base_size) / (1 + noise_scale / size)
        else:
            exponent = {"sqrt": 0.5, "linear": 1.0, "power": self.exponent}[self.rule]
            factor = (size / base_size) ** exponent
        return min(factor, self.max_factor)

    def schedule_factor(self, round_: int, rounds: int, share: float | None = None) -> float:
        """Warm-up x decay at round ``round_`` of ``rounds``, or where ``share`` of the run is done by another clock.

        >>> LearningRate(decay="wsd", decay_share=0.5).schedule_factor(75, 100)
        0.5
        """
        warmup = min(1.0, (round_ + 1) / self.warmup_rounds) if self.warmup_rounds else 1.0
        return warmup * self._decayed(min(round_ / rounds if share is None else share, 1.0))

    def share_at(self, factor: float) -> float:
        """The share of the run at which the decay alone has come down to ``factor``, in (0, 1).

        >>> LearningRate(decay="cosine").share_at(0.5)
        0.5
        """
        match self.decay:
            case "cosine":
                return math.acos(2 * factor - 1) / math.pi
            case "linear":
                return 1 - factor
            case "wsd":
                return 1 - factor * self.decay_share
        raise ValueError("learning_rate.decay is none, which never comes down")

    def _decayed(self, share: float) -> float:
        match self.decay:
            case "cosine":
                return 0.5 * (1 + math.cos(math.pi * share))
            case "linear":
                return 1 - share
            case "wsd":
                return min(1.0, (1 - share) / self.decay_share)
        return 1.0

    def blend(self, old: float, new: float, rounds_since_switch: int) -> float:
        """The factor on the way from ``old`` to ``new`` after a switch."""
        if not self.switch_warmup_rounds:
            return new
        share = min(1.0, (rounds_since_switch + 1) / self.switch_warmup_rounds)
        return old + (new - old) * share

    def most(self, old: float, rounds_since_switch: int) -> float:
        """The largest factor that the rule may have so many rounds after a change from ``old``."""
        if self.max_growth is None:
            return math.inf
        return old * math.exp(min((rounds_since_switch + 1) * math.log(self.max_growth), 700.0))
