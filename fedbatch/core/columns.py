"""Every column of a run's record: its name, unit and meaning, and where it is shown.

Whoever writes a column adds a line here; the table at the end of a run, the page, the picture, TensorBoard,
``target_metric`` and docs read it, by `fedbatch.core.find_columns`. A ``*`` in a name stands for a family of columns.
"""

from dataclasses import dataclass


@dataclass(frozen=True)
class Column:
    """One column, or a family.

    Attributes:
        name: in the record.
        meaning: one line.
        unit: of its numbers, "" for none.
        better: "higher" or "lower" for a score, else "".
        private: column that people see in its place in a private run, "" for itself.
        shown: where: "summary", "curve" of a page, "compare" runs, "cost" of a comparison, "target" may end a run.
        group: heading in TensorBoard.
    """

    name: str
    meaning: str
    unit: str = ""
    better: str = ""
    private: str = ""
    shown: tuple[str, ...] = ()
    group: str = "round"

    @property
    def label(self) -> str:
        """The name in words."""
        return LABELS.get(self.name, self.name.replace("_", " "))


LABELS = {"lr": "server learning rate", "epsilon_rdp": "epsilon (RDP)"}
SCORE = ("summary", "curve", "compare", "target")
COST = ("summary", "cost")
SECONDS = "seconds"

COLUMNS = (
    Column("round", "index of the round, from 0"),
    Column("rounds", "rounds done", shown=("summary", "cost")),
    Column("phase", "name of the phase"),
    Column("switch", "why the phase changes after this round, empty if it does not"),
    Column("lr", "learning rate of the server optimizer", shown=("curve", "compare")),
    Column("rejected_evaluations", "nodes whose scores of held-out examples were not valid; absent without"),
    Column("bounded_nodes", "nodes whose updates were far longer than others' and were scaled down; absent without"),
    Column(
        "lost_client_states",
        "clients whose own state was not there and who began with zeros; absent where clients keep none",
        "clients",
    ),
    Column("cohort_size", "clients that gave an update", "clients", shown=("curve",)),
    Column(
        "global_batch",
        "examples in the round's sum, expected ones under privacy",
        "examples",
        shown=("curve", "compare"),
    ),
    Column(
        "test_accuracy", "share of the server's test split that is right", better="higher", shown=SCORE, group="test"
    ),
    Column("test_loss", "mean loss on the server's test split", better="lower", shown=SCORE, group="test"),
    Column(
        "train_loss",
        "mean loss of the round's clients before their step; not released under privacy",
        better="lower",
        shown=SCORE,
    ),
    Column(
        "training_set_loss",
        "mean loss on `training_set_examples` examples of the training set",
        better="lower",
        shown=SCORE,
    ),
    Column("training_set_accuracy", "share of these that is right", better="higher", shown=("summary", "curve")),
    Column("training_set_*", "other scores of these, by `task`"),
    Column(
        "average_test_accuracy",
        "the same of the averaged parameters",
        better="higher",
        shown=SCORE,
        group="test",
    ),
    Column("average_test_loss", "the same of the averaged parameters", better="lower", shown=SCORE, group="test"),
    Column("average_test_*", "other scores of the averaged parameters, by `task`", group="test"),
    Column(
        "noised_accuracy",
        "share of what clients hold out that is right, with privacy noise",
        better="higher",
        shown=("summary", "curve"),
        group="privacy",
    ),
    Column("noised_accuracy_se", "its standard error, at most", group="privacy"),
    Column(
        "noise_scale",
        "gradient noise scale, averaged over rounds",
        "noise_scale_unit",
        private="noise_scale_dp",
        shown=("summary", "curve", "compare"),
        group="noise",
    ),
    Column(
        "noise_scale_low",
        "lower end of its interval",
        "noise_scale_unit",
        private="noise_scale_dp_low",
        shown=("summary", "curve"),
        group="noise",
    ),
    Column(
        "noise_scale_high",
        "upper end of its interval, infinite where the gradient is not told from 0",
        "noise_scale_unit",
        private="noise_scale_dp_high",
        shown=("summary", "curve"),
        group="noise",
    ),
    Column(
        "noise_scale_dp",
        "the same with privacy noise counted in, which a larger batch must also drown",
        "noise_scale_unit",
        shown=("summary",),
        group="noise",
    ),
    Column("noise_scale_dp_low", "lower end of its interval", "noise_scale_unit", shown=("summary",), group="noise"),
    Column("noise_scale_dp_high", "upper end of its interval", "noise_scale_unit", shown=("summary",), group="noise"),
    Column(
        "noise_scale_unit",
        "what noise scales are counted in: examples, or clients after local steps",
        shown=("summary",),
    ),
    Column(
        "noise_scale_tokens", "noise scale in labelled positions, where an example has many", "tokens", group="noise"
    ),
    Column("noise_scale_effective_rounds", "rounds that the average stands on", "rounds", group="noise"),
    Column(
        "round_grad_sq",
        "this round's estimate of |G|^2, squared length of the true gradient; may be negative",
        group="noise",
    ),
    Column("round_grad_sq_se", "its standard error", group="noise"),
    Column("round_trace", "this round's estimate of tr(S), variance of one unit's gradient", group="noise"),
    Column("round_trace_se", "its standard error", group="noise"),
    Column(
        "b_within",
        "noise scale of sampling within clients, with `noise_scale.halves`",
        "examples",
        shown=("curve",),
        group="noise",
    ),
    Column(
        "m_drift",
        "noise scale of the drift between clients, with `noise_scale.halves`",
        "clients",
        shown=("curve",),
        group="noise",
    ),
    Column(
        "gain_2x",
        "progress of the optimizer's step on twice the batch over that on this batch, with `noise_scale.groups`",
        shown=("summary", "curve"),
        group="noise",
    ),
    Column("gain_2x_se", "its standard error", group="noise"),
    Column(
        "b_half",
        "batch at which the optimizer's step makes half of its largest progress, with `noise_scale.groups`",
        "noise_scale_unit",
        shown=("summary", "curve"),
        group="noise",
    ),
    Column("b_half_low", "lower end of its interval", "noise_scale_unit", group="noise"),
    Column("b_half_high", "upper end of its interval", "noise_scale_unit", group="noise"),
    Column("b_l2", "noise scale in the norm of SGD, from groups of clients", "noise_scale_unit", group="noise"),
    Column(
        "b_l1",
        "noise scale in the norm of sign and Adam steps; too small where noise is large",
        "noise_scale_unit",
        group="noise",
    ),
    Column(
        "b_nuclear",
        "noise scale of matrices in the norm of Muon's steps; too small where noise is large",
        "noise_scale_unit",
        group="noise",
    ),
    Column(
        "layer_noise_scales", "noise scale of each layer, with `noise_scale.layers`", "noise_scale_unit", group="noise"
    ),
    Column("layer_traces", "tr(S) of each layer, averaged over measured rounds; they add up", group="noise"),
    Column("layer_grad_sqs", "|G|^2 of each layer, likewise", group="noise"),
    Column(
        "compression_variance",
        "variance that compression adds to one unit's gradient, to set beside `round_trace`; the squared error of a "
        "biased one",
        group="noise",
    ),
    Column("mean_update_norm", "length of the mean update"),
    Column("mean_cosine", "mean cosine between two clients' updates, with `noise_scale.cosine`"),
    Column("client_norms", "length of every client's update, with `record_client_norms`", group="clients"),
    Column("short_clients", "clients with fewer examples than `client_batch_size`", "clients"),
    Column("excluded_clients", "clients left out because their update was not finite", "clients"),
    Column("rejected_replies", "answers of nodes that were not used", "answers"),
    Column("executor", "what ran the clients"),
    Column("step_norm", "length of the step of a layer-wise optimizer"),
    Column(
        "trust_ratio_*", "trust ratios of a layer-wise optimizer over its layers", shown=("curve",), group="trust_ratio"
    ),
    Column(
        "epsilon",
        "spent so far, by the accountant of the guarantee, in rounds that are evaluated",
        shown=("summary", "curve", "compare", "cost"),
    ),
    Column("epsilon_rdp", "a quick reading of it by Rényi divergence, never below the final one"),
    Column("noise_multiplier", "noise on the sum, in clip norms"),
    Column("clip_norm", "clip norm of the round"),
    Column("gradient_snr", "length of the released mean over the expected length of its noise"),
    Column(
        "client_accuracy_p*",
        "percentile over clients of accuracy on what they hold out",
        shown=("curve",),
        group="clients",
    ),
    Column("client_*_p*", "the same of the score of another `task`", shown=("curve",), group="clients"),
    Column(
        "test_ece",
        "calibration error of the test split: 15 bins of equal width, l1",
        better="lower",
        shown=("curve",),
        group="test",
    ),
    Column(
        "held_out_ece", "calibration error of what clients hold out", better="lower", shown=("curve",), group="held_out"
    ),
    Column("test_*", "further scores of the test split, by `task` and with `metrics=calibration`", group="test"),
    Column("held_out_*", "the same of what clients hold out", group="held_out"),
    Column("attention_logit_max", "largest attention logit of each layer and head, with `record_attention`"),
    Column("query_max", "largest entry of each layer's query matrix, with `record_attention`"),
    Column("key_max", "largest entry of each layer's key matrix, with `record_attention`"),
    Column("labels_used", "labels asked for so far, in active learning", "labels", shown=("curve",)),
    Column("clusters", "clusters of all clients' examples", "clusters"),
    Column("clusters_covered", "clusters with a label", "clusters"),
    Column("queries", "queries for labels so far", "queries"),
    Column("class_balance", "entropy of the labels' classes over its largest value, in [0, 1]"),
    Column("query_bytes_*", "bytes of all queries so far", "bytes"),
    Column("examples", "examples processed by clients so far", "examples", shown=COST),
    Column(
        "bytes_up",
        "bytes sent by clients so far: one model-sized update each, or the message that carries it compressed",
        "bytes",
        shown=("summary",),
    ),
    Column("bytes_down", "bytes sent to clients so far: one model to each that is asked", "bytes", shown=("summary",)),
    Column("available_clients", "clients that could be asked; absent, as the next three, with all there", "clients"),
    Column("late_clients", "clients asked whose answers were not waited for", "clients"),
    Column("gone_clients", "clients asked who had left when their answers were due", "clients"),
    Column("waiting_seconds", "simulated seconds before the round with no client there", SECONDS, group=SECONDS),
    Column(
        "staleness_mean",
        "steps of the server since the clients of the buffer began, on average; with `asynchronous`",
        "steps",
        shown=("curve",),
    ),
    Column("staleness_max", "the largest number of such steps", "steps"),
    Column("simulated_seconds", "seconds so far by `time_model`", SECONDS, shown=COST, group=SECONDS),
    Column(
        "measured_seconds",
        "seconds so far on this machine, without evaluation",
        SECONDS,
        shown=("summary",),
        group=SECONDS,
    ),
    Column("*_seconds", "of the round, by stage, on this machine; to a tenth under privacy", SECONDS, group=SECONDS),
)

DEFAULT_SCORE = "test_accuracy"
"""The score of ``target_metric`` where a run sets none; for a task without it, its own score."""
TARGETS = tuple(column.name for column in COLUMNS if "target" in column.shown)
"""Scores that may end a run as ``target_metric``."""
