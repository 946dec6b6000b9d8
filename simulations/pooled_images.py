"""The first images of Fashion-MNIST, made smaller: what studies with many runs of convolutional networks can afford."""

from functools import lru_cache

from fedbatch.data import fashion_mnist
from fedbatch.data.dataset import Dataset


@lru_cache(maxsize=1)
def first_images(examples: int = 20_000, pool: int = 2) -> Dataset:
    """The first ``examples`` images of Fashion-MNIST, and all 10,000 test images.

    Args:
        examples: for training, and for what clients hold out.
        pool: side of the squares of pixels that become one pixel, by their mean; it divides 28.
    """
    whole = fashion_mnist()
    train_x, test_x = (
        x.reshape(-1, 1, 28 // pool, pool, 28 // pool, pool).mean(axis=(3, 5))
        for x in (whole.train_x[:examples], whole.test_x)
    )
    return Dataset("fashion_pooled", train_x, whole.train_y[:examples], test_x, whole.test_y, 10)
