"""Phones adapt a language model that came with them: what travels with LoRA, and what does the privacy of a phone cost?

    python -m simulations.stories.phones

A company trains a small GPT-2 on half of the roles of the plays. The other roles are phones. Their owners write in
lower case and leave out vowels, which the model has never seen. The phones train all parameters, or LoRA factors alone,
or those with a guarantee for each phone. Needs ``pip install "fedbatch[hf,dp]"``; nothing is downloaded.
"""

import argparse
from pathlib import Path
from typing import Any

import matplotlib

matplotlib.use("Agg")
import numpy as np
import torch
from matplotlib import pyplot as plt
from torch.nn.functional import cross_entropy

import fedbatch
from fedbatch.data import Dataset
from fedbatch.data.shakespeare import roles, windows

CONTEXT, LEAST_CHARACTERS, TESTED = 32, 600, 1000
EPSILON = 8.0
GPT2 = {"model_type": "gpt2", "n_embd": 64, "n_layer": 2, "n_head": 4, "n_positions": CONTEXT}
ENDS = {"bos_token_id": 0, "eos_token_id": 0}
"""GPT-2's own ends of a text have numbers that these symbols have not."""
COMMON = (
    *("task=language", "model=hf_causal_lm", "controller=fixed", "report=none", "overwrite=true"),
    *("evaluate_every_rounds=10", "checkpoint_every_rounds=0"),
)
LORA = ("model.lora.r=8", "model.lora.target_modules=[c_attn,c_proj,c_fc]")
PRIVATE = ("privacy=client_central", f"privacy.target_epsilon={EPSILON:g}")
WAYS = {
    "all parameters": ("run_dir={}/all", "server_optimizer.lr=0.003"),
    "LoRA": ("run_dir={}/lora", *LORA, "server_optimizer.lr=0.01"),
    f"LoRA, epsilon {EPSILON:g} for each phone": ("run_dir={}/private", *LORA, *PRIVATE, "server_optimizer.lr=0.003"),
}


def main() -> None:
    """Train the company's model, hand it to the phones, let them adapt it, draw."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--runs", type=Path, default=Path("runs/phones"))
    parser.add_argument("--quick", action="store_true", help="few rounds, to see that it works")
    given = parser.parse_args()
    company, phones = corpora()
    base = given.runs / "base"
    trained(company, given.runs / "company", 20 if given.quick else 450).export_folder(str(base))
    runs = {name: adapted(phones, base, 4 if given.quick else 100, way) for name, way in WAYS.items()}
    start = loss_of(fedbatch.models.hf_causal_lm(company.num_classes, path=str(base)), phones)
    print(f"{owners(phones)} phones; the company's model as it came: loss {start:.2f} a character")
    for name, run in runs.items():
        each = run.summary["parameters"] * 4e-6
        print(f"{name}: loss {run.summary['test_loss']:.2f}, {each:.2f} MB from a phone in a round")
    print(f"picture: {draw(given.runs, start, runs)}")


def typed(text: str) -> str:
    """As the phones' owners write.

    >>> typed("The spring, the head")
    'th sprng, th hd'
    """
    return " ".join(word[0] + "".join(c for c in word[1:] if c not in "aeiou") for word in text.lower().split())


def corpora() -> tuple[Dataset, Dataset]:
    """The company's texts, and those of the phones: a role is a phone, the last tenth of its words is for the test."""
    long = [text for text in roles().values() if len(text) > LEAST_CHARACTERS]
    company, phones = [text.replace("\n", " ") for text in long[::2]], [typed(text) for text in long[1::2]]
    symbols = np.unique(np.frombuffer("".join(company + phones).encode(), np.uint8))
    return sequences("company", company, symbols), sequences("phones", phones, symbols)


def sequences(name: str, texts: list[str], symbols: np.ndarray) -> Dataset:
    """Sequences of `CONTEXT` symbols and the next ones, by the owner of the text."""
    train, test, owner = [], [], []
    for i, text in enumerate(texts):
        rows = windows(np.searchsorted(symbols, np.frombuffer(text.encode(), np.uint8)), CONTEXT)
        held_out = max(len(rows) // 10, 1)
        train.append(rows[:-held_out])
        test.append(rows[-held_out:])
        owner.append(np.full(len(rows) - held_out, i))
    x, held = np.concatenate(train), np.random.default_rng(0).permutation(np.concatenate(test))[:TESTED]
    return Dataset(name, x[:, :-1], x[:, 1:], held[:, :-1], held[:, 1:], len(symbols), np.concatenate(owner))


def trained(texts: Dataset, folder: Path, rounds: int) -> Any:
    """The company's own training, in one place: eight equal clients, all in every round."""
    size = ("partitioner=iid", "population=8", "cohort_size=8", "client_batch_size=16", f"rounds={rounds}")
    config = f"model.config={{{', '.join(f'{key}: {value}' for key, value in (GPT2 | ENDS).items())}}}"
    optimizer = ("server_optimizer=adamw", "server_optimizer.lr=0.005")
    return fedbatch.run(*COMMON, *size, *optimizer, config, f"run_dir={folder}", dataset=texts).model


def adapted(texts: Dataset, base: Path, rounds: int, way: tuple[str, ...]) -> fedbatch.Result:
    """One way to adapt: 64 phones a round with 8 sequences each."""
    clients = ("partitioner=natural", f"population={owners(texts)}", "cohort_size=64", "client_batch_size=8")
    own = [option.format(base.parent) for option in way]
    size = (*clients, f"rounds={rounds}", f"model.path={base}", "server_optimizer=adam")
    return fedbatch.run(*COMMON, *size, *own, dataset=texts)


def owners(texts: Dataset) -> int:
    """Whose texts they are: how many."""
    assert texts.owner is not None
    return len(np.unique(texts.owner))


@torch.no_grad()
def loss_of(model: torch.nn.Module, texts: Dataset) -> float:
    """Nats a character on the test split."""
    logits = model.eval()(torch.from_numpy(texts.test_x)).logits
    return float(cross_entropy(logits.flatten(0, 1), torch.from_numpy(texts.test_y).flatten()))


def draw(folder: Path, start: float, runs: dict[str, fedbatch.Result]) -> Path:
    """Loss over rounds of each way, and what a phone sends in a round."""
    figure, (left, right) = plt.subplots(1, 2, figsize=(9, 3.6), layout="constrained", width_ratios=(3, 2))
    colors = ("#0072B2", "#009E73", "#D55E00")
    for color, (name, run) in zip(colors, runs.items(), strict=True):
        rows = run.rounds.drop_nans("test_loss")
        left.plot([0, *rows["rounds"]], [start, *rows["test_loss"]], "o-", ms=3, color=color, label=name)
    left.set(xlabel="rounds", ylabel="test loss, nats a character")
    left.legend(frameon=False, fontsize=8)
    left.grid(alpha=0.3)
    sent = [run.summary["parameters"] * 4e-6 for run in runs.values()]
    right.barh(range(len(runs)), sent, color=colors)
    right.set(yticks=range(len(runs)), xlabel="MB from a phone in a round")
    right.set_yticklabels([name.replace(", ", ",\n") for name in runs], fontsize=8)
    right.invert_yaxis()
    path = folder / "phones.png"
    figure.savefig(path, dpi=130)
    return path


if __name__ == "__main__":
    main()
