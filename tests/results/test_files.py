import json
import math

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fedbatch.core.files import from_json, to_json

names = st.sampled_from(["loss", "norms", "test", "a_b"])
leaf = st.sampled_from([None, True, 3, 0.1, math.nan, math.inf, -math.inf, "nan", ""])
values = st.recursive(leaf, lambda inner: st.lists(inner, max_size=3) | st.dictionaries(names, inner), max_leaves=6)


@settings(max_examples=50, deadline=None)
@given(st.dictionaries(names, values))
def test_what_is_written_is_strict_and_comes_back(written):
    text = to_json(written)
    json.loads(text, parse_constant=lambda word: pytest.fail(f"{word} is not JSON"))
    assert repr(from_json(text)) == repr(written)


def test_words_of_an_earlier_version_are_read_and_what_is_no_object_is_not():
    assert from_json('{"a": NaN, "b": -Infinity}')["b"] == -math.inf
    for text in ("[1]", "", "{", "null", '{"not_finite": {"a.b": "nan"}}', '{"not_finite": 3}', b"\xff"):
        with pytest.raises(ValueError):
            from_json(text)
