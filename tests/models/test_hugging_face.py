"""Tiny models of transformers, from a folder or from numbers, whole and with LoRA, through whole runs."""

import json
import subprocess
import sys
from dataclasses import replace

import numpy as np
import pytest
import torch
import torch.nn.functional as F

import fedbatch
from fedbatch import client_app
from fedbatch.clients.clip import Clip
from fedbatch.clients.per_example import as_examples
from fedbatch.core.errors import ConfigError
from fedbatch.data.dataset import Dataset
from fedbatch.executors.choose import Executors
from fedbatch.setup import task
from fedbatch.wire.messages import Hosted
from tests.conftest import run

transformers, peft = pytest.importorskip("transformers"), pytest.importorskip("peft")
transformers.logging.set_verbosity_error()
pytestmark = pytest.mark.filterwarnings("ignore:.*is_gradient_checkpointing", "ignore:.*batching rule")

GPT2 = dict(model_type="gpt2", vocab_size=20, n_positions=8, n_embd=8, n_layer=2, n_head=2)
GPT2 |= dict(bos_token_id=0, eos_token_id=0, pad_token_id=0)
DROPOUT = ("resid_pdrop", "embd_pdrop", "attn_pdrop")  # 0.1 where nothing is said
GPT2 |= dict.fromkeys(DROPOUT, 0.0)
VIT = dict(model_type="vit", image_size=8, patch_size=4, num_channels=1, hidden_size=8, num_hidden_layers=2)
VIT |= dict(num_attention_heads=2, intermediate_size=16)
LORA = {"gpt2": dict(r=2, alpha=4, target_modules=["c_attn"]), "vit": dict(r=2, target_modules=["q_proj", "v_proj"])}
BASE = ("controller=fixed", "population=10", "cohort_size=3", "client_batch_size=4", "rounds=2")
PRIVATE = ("privacy=example_local", "privacy.target_epsilon=null", "privacy.noise_multiplier=1")


def texts(labels="classes"):
    """Sequences of 2 to 8 tokens from 1; the label is the first token's half, or each next token."""
    rng = np.random.default_rng(0)
    lengths = rng.integers(2, 9, 100)
    lengths[0] = 8
    rows = [rng.integers(1, 20, n) for n in lengths]
    y = np.array([row[0] % 2 for row in rows])
    if labels == "next":
        y = [np.append(row[1:], -100) for row in rows]
    train, test = ({"input_ids": rows[part]} for part in (slice(70), slice(70, None)))
    return Dataset("texts", train, y[:70], test, y[70:], 20 if labels == "next" else 2)


def node(kind, target="hf_classifier", **more):
    return {
        "_target_": f"fedbatch.models.{target}",
        "output": "logits",
        "config": {"vit": VIT, "gpt2": GPT2}[kind],
        **more,
    }


@pytest.fixture
def config_of(make_config):
    def make(kind, *overrides, labels="classes", target="hf_classifier", folder="run", **more):
        base = (*BASE, "dataset=digits")
        config = replace(make_config(*overrides, base=base, folder=folder), model=node(kind, target, **more))
        if kind == "gpt2":
            config = replace(config, dataset={"_target_": "tests.models.test_hugging_face.texts", "labels": labels})
        return config

    return make


@pytest.fixture
def folder_of(tmp_path):
    """A folder with a pretrained model, whose head is for five classes."""

    def make(kind, seed=0, classes=5):
        torch.manual_seed(seed)
        fields = {"vit": VIT, "gpt2": GPT2}[kind]
        made = transformers.AutoConfig.for_model(**fields, num_labels=classes)
        auto = {
            "vit": transformers.AutoModelForImageClassification,
            "gpt2": transformers.AutoModelForSequenceClassification,
        }
        auto[kind].from_config(made).save_pretrained(tmp_path / f"{kind}-{seed}")
        return str(tmp_path / f"{kind}-{seed}")

    return make


FAST = {
    ("vit", False): ("loop", "vmap"),  # a token and positions that are parameters of no layer
    ("vit", True): ("loop", "vmap", "fused", "ghost"),
    ("gpt2", False): ("loop", "vmap"),  # positions are looked up once for all examples
    ("gpt2", True): ("loop", "vmap", "fused", "ghost"),
}


@pytest.mark.parametrize(("kind", "with_lora"), FAST)
def test_a_private_sum_is_that_of_a_loop_over_examples(config_of, folder_of, kind, with_lora):
    lora = LORA[kind] if with_lora else None
    config = config_of(kind, *PRIVATE, path=folder_of(kind), lora=lora)
    config = replace(config, model=config.model | {"config": None})
    loaded = task.load(config.to_json())
    model = loaded.node_model
    model.module.train()
    params = model.params + 0.05 * torch.randn(len(model.params), generator=torch.Generator().manual_seed(3))
    chosen = np.arange(12)
    model.load(params, model.buffers)
    own, forward = [], vars(model.module)["forward"].forward
    for i in chosen:
        x = loaded.train_x[i : i + 1]
        out = forward(x) if kind == "vit" else forward(input_ids=x[:, :8][x[:, :8] != 0][None])  # without its padding
        loss = F.cross_entropy(out.logits, loaded.train_y[i : i + 1])
        grads = torch.autograd.grad(loss, model.trainable, materialize_grads=True, allow_unused=True)
        own.append(torch.cat([g.flatten() for g in grads]))
    norm = float(torch.stack([g.norm() for g in own]).median())
    expected = sum(g * min(1.0, norm / float(g.norm())) for g in own)
    job = replace(loaded.job_of(*as_examples(chosen, Clip(norm)), params), clip=Clip(norm))
    executors, right = Executors(), FAST[kind, with_lora]
    for name in ("loop", "vmap", "fused", "ghost"):
        assert (executors.unusable(name, job) is None) == (name in right), name
    for name in right:
        got = executors.execute(job, name).update_sum
        assert float((got - expected).norm() / expected.norm()) < 1e-5, name


def test_attention_that_looks_at_its_mask_is_left_to_the_loop(config_of):
    loaded = task.load(config_of("gpt2", attention="sdpa").to_json())
    job = loaded.new_job(loaded.default_work, np.arange(2), np.full(2, 4), 0, loaded.node_model.params.clone())
    reason = Executors().unusable("vmap", job)
    assert reason and "data-dependent control flow" in reason and len(reason.splitlines()) == 1
    assert loaded.execute(job, "auto", lambda: job).executor == "loop"


@pytest.mark.parametrize("kind", ["vit", "gpt2"])
def test_only_what_is_trained_travels(config_of, folder_of, kind):
    config = config_of(kind, lora=LORA[kind])
    model = task.load(config.to_json()).node_model
    assert all("lora" in name or "modules_to_save" in name for name in model.names)
    width = dict(vit=8, gpt2=8)[kind]
    factors = dict(vit=2 * 2 * 2 * (width + width), gpt2=2 * 2 * (width + 3 * width))[kind]
    head = dict(vit=10 * width + 10, gpt2=2 * width)[kind]
    assert model.params.numel() == factors + head


@pytest.mark.parametrize(
    ("kind", "more"),
    [
        ("vit", {}),
        ("vit", dict(lora=LORA["vit"])),
        ("gpt2", dict(lora=LORA["gpt2"])),
        ("gpt2", dict(lora=LORA["gpt2"], target="hf_causal_lm", labels="next")),
        ("gpt2", dict(target="hf_causal_lm", labels="next", config=GPT2 | dict.fromkeys(DROPOUT, 0.1))),
    ],
)
def test_a_private_run_and_its_model_read_back_by_transformers(config_of, folder_of, tmp_path, kind, more):
    config = config_of(kind, *PRIVATE, "server_optimizer.lr=0.5", **more)
    if "labels" not in more:
        config = replace(config, model=config.model | {"config": None, "path": folder_of(kind)})
    rows, summary, _ = run(config)
    assert len(rows) == 2 and np.isfinite(summary["test_loss"]) and summary["epsilon"] > 0
    model = fedbatch.load_model(tmp_path / "run", trust=["tests"])
    fedbatch.export(tmp_path / "run", tmp_path / "merged", trust=["tests"])
    auto = (
        transformers.AutoModelForImageClassification
        if kind == "vit"
        else transformers.AutoModelForSequenceClassification
    )
    auto = transformers.AutoModelForCausalLM if "labels" in more else auto
    again, told = auto.from_pretrained(tmp_path / "merged", output_loading_info=True)
    assert not any(told.values()), "no weight is missing, and none is left over"
    x = torch.randn(3, 1, 8, 8) if kind == "vit" else torch.randint(1, 20, (3, 6))
    with torch.no_grad():
        assert (model(x).logits - again.eval()(x).logits).abs().max() < 1e-5
    if kind == "vit" and "lora" not in more:
        fresh = task.load(config.to_json()).new_model()
        assert (fresh.module.eval()(x) - again(x).logits).abs().max() > 1e-3, "training moved it"


def test_a_run_goes_on_only_with_the_frozen_part_it_began_with(config_of, folder_of, tmp_path):
    path, other = folder_of("vit", classes=10), folder_of("vit", seed=1, classes=10)
    config = config_of("vit", "rounds=1", lora=LORA["vit"])
    config = replace(config, model=config.model | {"config": None, "path": path})
    run(config)
    first = task.load(config.to_json()).frozen
    (tmp_path / "vit-0" / "model.safetensors").write_bytes((tmp_path / "vit-1" / "model.safetensors").read_bytes())
    task.forget()
    assert first and task.load(config.to_json()).frozen != first
    task.forget()
    with pytest.raises(ConfigError, match="the frozen part of the model has changed"):
        run(replace(config, resume=str(tmp_path / "run"), rounds=2))
    whole = replace(config, model=config.model | {"lora": None, "path": other})
    task.forget()
    assert task.load(whole.to_json()).frozen == "", "all of it travels"


def test_a_node_with_another_frozen_part_is_refused_before_the_first_round(config_of, monkeypatch, tmp_path):
    monkeypatch.setattr(client_app, "Hosted", lambda clients, sizes, frozen, _: Hosted(clients, sizes, frozen[::-1]))
    with pytest.raises(ConfigError, match="model: node .* has other frozen parameters than the server; give both the"):
        run(config_of("vit", lora=LORA["vit"]))
    assert not (tmp_path / "run" / "rounds.jsonl").exists()


REFUSED = {
    "neither": (dict(config=None), "model: path, a folder, or config, with a model_type, is needed, and not both"),
    "both": (dict(path="x"), "and not both"),
    "no folder": (dict(config=None, path="nowhere"), "path=nowhere holds no config.json"),
    "no type": (dict(config={"n_layer": 1}), "config: has no model_type"),
    "no such type": (dict(config={"model_type": "gpt7"}), "gpt7"),
    "no such field": (dict(config=VIT | {"n_layer": 1}), "config: vit has no n_layer; see ViTConfig"),
    "other task": (dict(config={"model_type": "whisper"}, target="hf_causal_lm"), "model: "),
    "no classifier": (dict(config={"model_type": "sam"}), "no classifier of model_type sam"),
    "no such layer": (dict(lora=dict(r=2, target_modules=["c_attn"])), "No modules were targeted"),
    "no such key": (dict(lora=dict(rank=2)), "lora: has no rank; it has r, alpha"),
    "code from elsewhere": (dict(attention="somebody/attention"), "attention must be eager or sdpa"),
    "attention by a field": (dict(config=VIT | {"_attn_implementation": "somebody/attention"}), "has no _attn_impl"),
    "other images": (dict(config=VIT | {"image_size": 16}), "cannot be called on a batch"),
}


def test_code_in_a_folder_is_not_run(config_of, folder_of, tmp_path):
    path = folder_of("vit")
    (tmp_path / "vit-0" / "strange.py").write_text(f"open({str(tmp_path / 'ran')!r}, 'w')\n")
    file = tmp_path / "vit-0" / "config.json"
    values = json.loads(file.read_text()) | {"model_type": "strange", "auto_map": {"AutoConfig": "strange.Config"}}
    file.write_text(json.dumps(values))
    config = config_of("vit", path=path)
    with pytest.raises(ConfigError, match="model: ") as error:
        task.load(replace(config, model=config.model | {"config": None}).to_json())
    assert not (tmp_path / "ran").exists() and "\n" not in str(error.value)


@pytest.mark.parametrize("name", REFUSED)
def test_what_cannot_be_built_is_one_line(config_of, name):
    more, message = REFUSED[name]
    with pytest.raises(ConfigError, match=message) as error:
        task.load(config_of("vit", **more).to_json())
    assert "\n" not in str(error.value)


def test_nothing_of_it_is_imported_before_it_is_asked_for():
    code = "import fedbatch.models, fedbatch.data, fedbatch.server_app, fedbatch.client_app, fedbatch.trained, sys\n"
    code += "print(*{'transformers', 'peft', 'tokenizers', 'accelerate'} & {*sys.modules})"
    found = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert found.stdout.strip() == ""


@pytest.mark.parametrize("package", ["transformers", "peft"])
def test_a_package_that_is_not_there_is_told_with_what_installs_it(config_of, monkeypatch, package):
    monkeypatch.setitem(sys.modules, package, None)
    with pytest.raises(ConfigError, match=rf"model: .*needs {package}; pip install \"fedbatch\[hf\]\""):
        task.load(config_of("vit", lora=LORA["vit"]).to_json())
