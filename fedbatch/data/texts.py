"""Texts as vectors of hashed counts of words, or of letters where a script has no words to see."""

import logging
import re
from collections import Counter
from collections.abc import Callable
from typing import Any

import numpy as np
import numpy.typing as npt

from fedbatch.data.rows import listed

log = logging.getLogger("fedbatch")

WORD = re.compile(r"(?u)\b\w\w+\b")  # as in scikit-learn's vectorizers
# Thai, Lao, Tibetan, Myanmar, Khmer, Hiragana, Katakana, Han: scripts that put no spaces between words.
UNSPACED = re.compile(
    "[\u0e00-\u0fff\u1000-\u109f\u1780-\u17ff\u3005-\u3007\u3040-\u30ff\u3400-\u9fff\uf900-\ufaff\U00020000-\U0003ffff]+"
)
SAMPLE = 2000  # texts by which the features are chosen


def features(parts: list[list[str]], column: str, length: int) -> list[npt.NDArray[np.float32]]:
    """Vectors ``(texts, length)`` of unit length, for the training texts and others; zeros where a text says nothing.

    A text is its words. A word in a script without spaces is its characters and their pairs instead. Where most
    training texts share no word with another one, as with codes, sequences or signs, all texts are their characters,
    pairs and triples.

    Raises:
        ValueError: no training text has any feature.
    """
    from sklearn.feature_extraction.text import HashingVectorizer

    field = f"dataset.input_column={column}"
    chosen: dict[str, Any] = {"analyzer": words}
    if not _recur(parts[0], words):
        chosen = {"analyzer": "char_wb", "ngram_range": (1, 3)}
        log.info("%s: most texts share no words; their features are characters, pairs and triples", field)
    hashed = HashingVectorizer(n_features=length, dtype=np.float32, **chosen)
    vectors = [hashed.transform(texts) for texts in parts]
    for name, matrix in zip(("training", "test"), vectors, strict=False):
        silent = np.diff(matrix.indptr) == 0
        if silent.all() and name == "training":
            raise ValueError(f"{field}: no training text holds a letter or sign; choose another column")
        if silent.any():
            log.warning("%s: %s texts without any feature: %s", field, name, listed(silent))
    return [matrix.toarray() for matrix in vectors]


def words(text: str) -> list[str]:
    """The words of a text, in small letters; of scripts without spaces, characters and pairs of characters.

    >>> words("Good work: 很好")
    ['good', 'work', '很', '好', '很好']
    """
    text = text.lower()
    runs = UNSPACED.findall(text)
    tokens: list[str] = WORD.findall(UNSPACED.sub(" ", text) if runs else text)
    for run in runs:
        tokens += [*run, *(run[i : i + 2] for i in range(len(run) - 1))]
    return tokens


def _recur(texts: list[str], analyze: Callable[[str], list[str]]) -> bool:
    """Whether at least half of the texts that are not empty, by a sample, share a word with another one."""
    filled = [text for text in texts if text.strip()]
    seen = [set(analyze(text)) for text in filled[:: max(1, len(filled) // SAMPLE)]]
    counts = Counter(word for each in seen for word in each)
    return 2 * sum(any(counts[word] > 1 for word in each) for each in seen) >= len(seen)
