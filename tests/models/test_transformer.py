import pytest
import torch
from torch import nn

from fedbatch.models.attention import attention_logits
from fedbatch.models.transformer import Attention, bert, gpt

SIZE = {"layers": 2, "heads": 2, "width": 8}


def build(make, tie_weights=False):
    torch.manual_seed(0)
    return make((6,), 11, **SIZE, tie_weights=tie_weights).double()


def changed(model, position):
    """Which positions' logits change with the token at ``position``."""
    x = torch.arange(6)[None]
    y = x.clone()
    y[0, position] = 9
    return (model(x) != model(y)).any(dim=-1)[0].tolist()


def test_gpt_sees_the_past_and_bert_sees_all():
    assert changed(build(gpt), 3) == [False] * 3 + [True] * 3
    assert changed(build(bert), 3) == [True] * 6


def test_shapes_tying_and_shorter_sequences():
    free, tied = build(gpt), build(gpt, tie_weights=True)
    assert free(torch.zeros(3, 4)).shape == tied(torch.zeros(3, 4)).shape == (3, 4, 11), "any dtype, up to 6 positions"
    assert tied.out.weight is tied.tokens.weight
    counts = [sum(p.numel() for p in m.parameters()) for m in (free, tied)]
    assert counts[0] - counts[1] == 11 * 8


def test_attention_by_hand():
    torch.manual_seed(0)
    layer = Attention(4, heads=2, causal=True).double()
    h = torch.randn(1, 3, 4).double()
    q, k, v = (project(h)[0] for project in (layer.query, layer.key, layer.value))
    mixed = torch.zeros(3, 4).double()
    for head in (slice(0, 2), slice(2, 4)):
        for i in range(3):
            weights = (k[: i + 1, head] @ q[i, head] / 2**0.5).softmax(dim=0)
            mixed[i, head] = weights @ v[: i + 1, head]
    torch.testing.assert_close(layer(h)[0], layer.out(mixed))


@torch.no_grad()
@pytest.mark.parametrize("make", [gpt, bert])
def test_largest_logit_by_hand_and_the_model_is_left_as_it_was(make):
    model, x = build(make), torch.randint(11, (3, 6))
    before = model(x)
    sizes = attention_logits(model, x)
    assert torch.equal(model(x), before) and not any(m._forward_pre_hooks for m in model.modules())
    first = model.blocks[0]
    for n in range(3):  # one example at a time, so that a pair too many or too few shows
        h = first.norm_1(model.tokens(x[n]) + model.positions(torch.arange(6)))
        alone = attention_logits(model, x[n : n + 1]).attention_logit_max[0]
        for head in range(2):
            own = slice(4 * head, 4 * head + 4)
            q, k = first.attention.query(h)[:, own], first.attention.key(h)[:, own]
            pairs = [(i, j) for i in range(6) for j in range(i + 1 if make is gpt else 6)]
            assert float(alone[head]) == pytest.approx(max(abs(float(q[i] @ k[j])) / 2 for i, j in pairs))
        assert (alone <= sizes.attention_logit_max[0]).all()
    assert sizes.attention_logit_max.shape == (2, 2)
    assert sizes.query_max.tolist() == [float(b.attention.query.weight.abs().max()) for b in model.blocks]
    assert sizes.key_max.tolist() == [float(b.attention.key.weight.abs().max()) for b in model.blocks]


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: gpt((1, 8, 8), 10, **SIZE, tie_weights=False), "sequences of tokens"),
        (lambda: gpt((8,), 10, layers=1, heads=3, width=8, tie_weights=False), "heads must divide width"),
        (lambda: bert((8,), 10, layers=0, heads=2, width=8, tie_weights=False), "positive"),
        (lambda: attention_logits(nn.Linear(2, 2), torch.zeros(1, 2)), "no attention"),
    ],
)
def test_what_cannot_be_is_refused(call, message):
    with pytest.raises(ValueError, match=message):
        call()
