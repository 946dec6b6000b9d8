import csv

import numpy as np
import pytest

import fedbatch
from fedbatch.data import hugging_face_text
from fedbatch.data.check_dataset import checked

transformers, tokenizers = pytest.importorskip("transformers"), pytest.importorskip("tokenizers")
WORDS = ["pad", "unk", *"the a cat dog sits runs here there".split()]
ROWS = [
    ("the cat sits", "calm"),
    ("a dog runs here", "wild"),
    ("the dog sits there", "calm"),
    ("a cat runs", "wild"),
] * 6


@pytest.fixture
def tokenizer(tmp_path):
    """A tokenizer of ten words in a folder."""
    model = tokenizers.Tokenizer(tokenizers.models.WordLevel({w: i for i, w in enumerate(WORDS)}, unk_token="unk"))
    model.pre_tokenizer = tokenizers.pre_tokenizers.Whitespace()
    fast = transformers.PreTrainedTokenizerFast(tokenizer_object=model, pad_token="pad", unk_token="unk")
    fast.save_pretrained(tmp_path / "words")
    return str(tmp_path / "words")


def table(tmp_path, rows=ROWS, columns=("text", "label")):
    with (tmp_path / "rows.csv").open("w", newline="") as file:
        csv.writer(file).writerows([columns, *rows])
    return str(tmp_path / "rows.csv")


def ids(text):
    return [WORDS.index(word) for word in text.split()]


def test_texts_become_tokens_with_their_class(tmp_path, tokenizer):
    data = hugging_face_text(table(tmp_path), tokenizer=tokenizer, test_fraction=0.25)
    rows = [*data.train_x["input_ids"], *data.test_x["input_ids"]]
    found = {(tuple(row.tolist()), int(y)) for row, y in zip(rows, [*data.train_y, *data.test_y], strict=True)}
    assert found == {(tuple(ids(text)), int(label == "wild")) for text, label in ROWS}
    assert len(data.train_y) == 18 and data.num_classes == 2 and data.pad == 0
    whole = checked(data)
    assert whole.layout.shapes == {"input_ids": (4,)} and whole.train_x.shape == (18, 8)
    short = hugging_face_text(table(tmp_path), tokenizer=tokenizer, max_length=2)
    assert {len(row) for row in short.train_x["input_ids"]} == {2}


def test_without_labels_each_position_has_the_next_token(tmp_path, tokenizer):
    rows = [(text, f"u{i % 3}") for i, (text, _) in enumerate(ROWS)]
    source = table(tmp_path, rows, ("text", "user"))
    data = hugging_face_text(source, tokenizer=tokenizer, label_column=None, owner_column="user")
    assert data.num_classes == len(WORDS) and set(data.owner.tolist()) == {0, 1, 2}
    for x, y in zip(data.train_x["input_ids"], data.train_y, strict=True):
        assert y.tolist() == [*x[1:].tolist(), -100]
    whole = checked(data)
    assert whole.train_y.shape == (len(data.train_y), 4) and (whole.train_y[:, -1] == -100).all()


@pytest.mark.parametrize(
    ("rows", "more", "message"),
    [
        ([*ROWS, ("", "calm")], {}, "fewer tokens than 1 in 1 of 25 rows"),
        ([*ROWS, ("cat", "calm")], dict(label_column=None), "fewer tokens than 2 in 1 of 25 rows"),
        ([(str(i), "a b".split()[i % 2]) for i in range(20)], {}, "holds numbers"),
        (ROWS, dict(tokenizer="nowhere"), "dataset.tokenizer=nowhere is no folder"),
        (ROWS, dict(label_column="kind"), "no column kind"),
        (ROWS, dict(test_fraction=2.0), "between 0 and 1"),
    ],
)
def test_what_cannot_be_read_is_one_line(tmp_path, tokenizer, rows, more, message):
    with pytest.raises(ValueError, match=message) as error:
        hugging_face_text(table(tmp_path, rows), **{"tokenizer": tokenizer} | more)
    assert "\n" not in str(error.value)


def test_a_gpt2_with_lora_learns_them_privately_from_folders(tmp_path, tokenizer):
    fields = dict(vocab_size=len(WORDS), n_positions=8, n_embd=8, n_layer=1, n_head=2)
    config = transformers.AutoConfig.for_model("gpt2", **fields, bos_token_id=0, eos_token_id=0, pad_token_id=0)
    transformers.AutoModelForSequenceClassification.from_config(config).save_pretrained(tmp_path / "gpt2")
    found = fedbatch.run(
        *("dataset=hugging_face_text", f"dataset.source={table(tmp_path)}", f"dataset.tokenizer={tokenizer}"),
        *(
            "model=hf_classifier",
            f"model.path={tmp_path / 'gpt2'}",
            "model.lora.r=2",
            "model.lora.target_modules=[c_attn]",
        ),
        *("privacy=example_local", "privacy.target_epsilon=8", "controller=fixed", "population=4", "cohort_size=4"),
        *("client_batch_size=4", "rounds=2", "report=none"),
        run_dir=tmp_path / "run",
    )
    assert found.summary["epsilon"] <= 8 and np.isfinite(found.summary["test_loss"])


def test_the_split_is_the_same_every_time(tmp_path, tokenizer):
    first, again = (hugging_face_text(table(tmp_path), tokenizer=tokenizer) for _ in range(2))
    assert np.array_equal(first.train_y, again.train_y)
    assert all(map(np.array_equal, first.test_x["input_ids"], again.test_x["input_ids"]))
