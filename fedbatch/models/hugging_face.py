"""Models of Hugging Face transformers, from a local folder or from a few numbers, whole or with LoRA of PEFT."""

import copy
import warnings
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import nn

HEADS = ("classifier", "pre_classifier", "score")
"""What classifiers call the layers behind the features, which are trained beside LoRA."""
ATTENTION = ("eager", "sdpa")
LOCAL = {"local_files_only": True, "trust_remote_code": False}
"""Nothing is fetched, and no code that lies in a folder is run, nor is anybody asked whether it may be."""
INSTALL = 'pip install "fedbatch[hf]"'


def hf_classifier(
    num_classes: int,
    path: str | None = None,
    config: Mapping[str, Any] | None = None,
    attention: str = "eager",
    lora: Mapping[str, Any] | None = None,
) -> nn.Module:
    """A classifier of images or of sequences, which returns ``logits`` (n, num_classes) among others.

    Args:
        num_classes: of the labels. A folder's head for another number of classes is replaced by a fresh one.
        path: a folder with ``config.json`` and ``model.safetensors``, as ``save_pretrained`` writes it.
        config: or ``model_type`` and fields of that type's configuration, for fresh parameters.
        attention: how attention is computed: "eager", or "sdpa", which looks at masks in a way that vmap cannot.
        lora: ``r``, ``alpha``, ``target_modules`` and ``dropout``: train factors of rank ``r`` in layers of these names
            and the head, and freeze all else (Hu et al. 2021). With r=None all parameters are trained.

    Raises:
        ImportError: a package that is not there, and how to install it.
        ValueError: a folder or a configuration of which no such model can be made.
    """
    auto = _transformers()
    found = _configured(path, config, num_labels=num_classes)
    kinds = (auto.AutoModelForSequenceClassification, auto.AutoModelForImageClassification)
    kind = next((each for each in kinds if type(found) in each._model_mapping), None)
    if kind is None:
        raise ValueError(f"config: transformers has no classifier of model_type {found.model_type}")
    module = _built(kind, path, found, attention)
    return _with_lora(module, lora, [name for name in HEADS if hasattr(module, name)])


def hf_causal_lm(
    num_classes: int,
    path: str | None = None,
    config: Mapping[str, Any] | None = None,
    attention: str = "eager",
    lora: Mapping[str, Any] | None = None,
) -> nn.Module:
    """A decoder, which returns ``logits`` (n, positions, tokens) of the next token among others.

    Args and errors are those of `hf_classifier`. ``num_classes`` is the vocabulary of a fresh model; one of a folder
    has its own, which may be larger.
    """
    auto = _transformers()
    size = {} if path is not None or "vocab_size" in (config or {}) else {"vocab_size": num_classes}
    found = _configured(path, config, **size)
    if type(found) not in auto.AutoModelForCausalLM._model_mapping:
        raise ValueError(f"config: transformers has no causal language model of model_type {found.model_type}")
    return _with_lora(_built(auto.AutoModelForCausalLM, path, found, attention), lora, [])


def _transformers() -> Any:
    try:
        import transformers
    except ImportError as error:
        raise ImportError(f"needs transformers; {INSTALL}") from error
    return transformers


def _configured(path: str | None, config: Mapping[str, Any] | None, **more: Any) -> Any:
    """The configuration of a folder, or of a type with some fields."""
    auto = _transformers().AutoConfig
    if (path is None) == (config is None):
        raise ValueError("path, a folder, or config, with a model_type, is needed, and not both")
    if path is not None:
        if not (Path(path) / "config.json").is_file():
            raise ValueError(f"path={path} holds no config.json; give a folder that save_pretrained has written")
        return auto.from_pretrained(path, use_cache=False, **LOCAL, **more)
    fields = {name: value for name, value in dict(config or {}).items() if name != "model_type"}
    kind = dict(config or {}).get("model_type")
    if kind is None:
        raise ValueError("config: has no model_type; give one that transformers knows, e.g. gpt2 or vit")
    with_defaults = auto.for_model(kind)
    if unknown := [name for name in fields if name.startswith("_") or not hasattr(with_defaults, name)]:
        raise ValueError(
            f"config: {kind} has no {', '.join(unknown)}; see {type(with_defaults).__name__} for its fields"
        )
    return auto.for_model(kind, **(more | fields | {"use_cache": False}))


def _built(kind: Any, path: str | None, config: Any, attention: str) -> Any:
    if attention not in ATTENTION:  # transformers would fetch code for other names
        raise ValueError(f"attention must be {' or '.join(ATTENTION)} (got {attention!r})")
    how = {"attn_implementation": attention, "dtype": torch.float32}
    if path is None:
        return kind.from_config(config, trust_remote_code=False, **how)
    with _without_bars():
        return kind.from_pretrained(
            path, config=config, use_safetensors=True, ignore_mismatched_sizes=True, **LOCAL, **how
        )


@contextmanager
def _without_bars() -> Iterator[None]:
    """Progress bars of transformers would break our own."""
    told = _transformers().utils.logging
    shown = told.is_progress_bar_enabled()
    told.disable_progress_bar()
    try:
        yield
    finally:
        if shown:
            told.enable_progress_bar()


def _with_lora(module: Any, lora: Mapping[str, Any] | None, heads: list[str]) -> nn.Module:
    """The module ready to be exported to a folder, with LoRA if a rank is given."""
    given = dict(lora or {})
    if unknown := given.keys() - {"r", "alpha", "target_modules", "dropout"}:
        raise ValueError(f"lora: has no {', '.join(sorted(unknown))}; it has r, alpha, target_modules and dropout")
    if given.get("r") is not None:
        try:
            import peft
        except ImportError as error:
            raise ImportError(f"lora: needs peft; {INSTALL}") from error
        wanted = peft.LoraConfig(
            r=given["r"],
            lora_alpha=given.get("alpha", 16),
            target_modules=given.get("target_modules"),
            lora_dropout=given.get("dropout", 0.0),
            modules_to_save=heads or None,
        )
        with warnings.catch_warnings(action="ignore"):  # that it fits itself to Conv1D, and of its own calls
            module = peft.get_peft_model(module, wanted)
    module.export_folder = partial(_export, module)
    return module


def _export(module: Any, folder: Path) -> None:
    """Write the model, with its factors merged into the weights, so that ``from_pretrained`` reads it."""
    whole = copy.deepcopy(module)
    if hasattr(whole, "merge_and_unload"):
        whole = whole.merge_and_unload()
    for p in whole.parameters():  # views of one vector until now
        p.data = p.data.clone(memory_format=torch.contiguous_format)
    with _without_bars():
        whole.save_pretrained(folder)
