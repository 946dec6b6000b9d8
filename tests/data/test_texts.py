import numpy as np
import pytest
from sklearn.feature_extraction.text import HashingVectorizer

from fedbatch.data import texts

ENGLISH = [f"the film was {'good' if i % 2 else 'bad'} and {i} minutes long" for i in range(30)]


def test_words_of_ordinary_texts_are_the_vectorizer_s_own():
    expected = HashingVectorizer(n_features=512, dtype=np.float32).transform(ENGLISH).toarray()
    got = texts.features([ENGLISH[:20], ENGLISH[20:]], "t", 512)
    assert np.array_equal(np.concatenate(got), expected)


def separable(train):
    """How many texts the nearest of two class means tells apart; classes alternate."""
    x, y = train, np.arange(len(train)) % 2
    centre = np.stack([x[:-20][y[:-20] == k].mean(0) for k in (0, 1)])
    return (np.argmax(x[-20:] @ centre.T, axis=1) == y[-20:]).mean()


@pytest.mark.parametrize(
    ("good", "bad", "filler"),
    [
        ("很好", "讨厌", "今天我们去商店买东西价格服务包装颜色"),
        ("うれしい", "かなしい", "わたしたちはみせでものをかいました"),
        ("ดีมาก", "แย่จัง", "กขคงจฉชซญฎฏฐ"),
        ("GATTACA", "CCCTCCC", "ACGT"),
        ("😀", "😡", "🌲🌳🌴🌵🌷🌸"),
        ("A", "B", "CDEFGH"),
    ],
)
def test_texts_without_words_are_told_apart_by_characters(good, bad, filler):
    rng = np.random.default_rng(0)
    rows = []
    for i in range(400):
        body = "".join(rng.choice([*filler], 9))
        cut = rng.integers(0, 9)
        rows.append(body[:cut] + (bad if i % 2 else good) + body[cut:])
    assert separable(texts.features([rows, rows[:2]], "t", 1024)[0]) > 0.85


def test_texts_that_say_nothing_are_told(caplog):
    rows = [*ENGLISH, "", "!"]
    texts.features([rows, ["", "good"]], "t", 64)
    assert "training texts without any feature: 2 of 32 rows (30, 31, counted from 0)" in caplog.text
    assert "test texts without any feature: 1 of 2 rows (0, counted from 0)" in caplog.text
    with pytest.raises(ValueError, match=r"dataset.input_column=t: no training text holds"):
        texts.features([["", " "], ["good"]], "t", 64)
