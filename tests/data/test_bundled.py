import numpy as np
import pytest

from fedbatch.data import bundled


@pytest.mark.parametrize(
    ("load", "shape", "examples", "classes"),
    [(bundled.digits, (1, 8, 8), 1797, 10), (bundled.breast_cancer, (30,), 569, 2)],
)
def test_shapes_split_and_repeatability(load, shape, examples, classes):
    data, again = load(), load()
    assert data.input_shape == shape and data.num_classes == classes
    assert data.train_x.dtype == np.float32 and data.train_y.dtype == np.int64
    assert len(data.train_y) + len(data.test_y) == examples
    train, test = np.bincount(data.train_y), np.bincount(data.test_y)
    np.testing.assert_allclose(test / (train + test), 0.2, atol=0.004)  # the same fraction of each class
    assert np.array_equal(data.train_x, again.train_x) and np.array_equal(data.test_y, again.test_y)


def test_digits_are_standardised_as_a_whole():
    x = bundled.digits().train_x
    assert abs(x.mean()) < 1e-5 and abs(x.std() - 1) < 1e-5


def test_breast_cancer_is_standardised_by_the_training_split_only():
    data = bundled.breast_cancer()
    np.testing.assert_allclose(data.train_x.mean(0), 0, atol=1e-5)
    np.testing.assert_allclose(data.train_x.std(0), 1, atol=1e-5)
    assert abs(data.test_x.mean(0)).max() > 1e-3
