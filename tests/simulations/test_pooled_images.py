"""Images of a study are those of the data set, made smaller."""

import numpy as np
import pytest

from fedbatch.data import Dataset
from simulations import pooled_images


def test_images_are_means_of_squares_of_pixels(monkeypatch):
    rng = np.random.default_rng(0)
    images = rng.normal(size=(6, 1, 28, 28)).astype(np.float32)
    monkeypatch.setattr(
        pooled_images, "fashion_mnist", lambda: Dataset("f", images, np.arange(6), images[:2], np.arange(2), 10)
    )
    found = pooled_images.first_images.__wrapped__(examples=4, pool=2)
    assert found.train_x.shape == (4, 1, 14, 14) and found.test_x.shape == (2, 1, 14, 14)
    assert found.train_x[3, 0, 5, 13] == pytest.approx(images[3, 0, 10:12, 26:28].mean(), rel=1e-5)
