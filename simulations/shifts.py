"""Shifted test images at five severities: noise, blur, rotation. Made here, so that nothing has to be fetched."""

from collections.abc import Callable

import numpy as np
import numpy.typing as npt
from scipy import ndimage  # comes with scikit-learn

from fedbatch.core.random import generator

Images = npt.NDArray[np.float32]
SEVERITIES = (1, 2, 3, 4, 5)


def noise(images: Images, severity: int) -> Images:
    """Gaussian noise of 0.2 to 1 standard deviations of the training pixels, in which images are given."""
    drawn = generator(0, "shift", severity).standard_normal(images.shape)
    return (images + 0.2 * severity * drawn).astype(np.float32)


def blur(images: Images, severity: int) -> Images:
    """Gaussian blur of a quarter of a pixel and 1/80 to 5/80 of the width."""
    radius = 0.25 + severity * images.shape[-1] / 80
    return np.asarray(ndimage.gaussian_filter(images, (0, 0, radius, radius)), dtype=np.float32)


def rotation(images: Images, severity: int) -> Images:
    """Rotation by 10 to 50 degrees to the left; corners are filled with the darkest value."""
    turned = ndimage.rotate(images, 10 * severity, axes=(3, 2), reshape=False, order=1, cval=float(images.min()))
    return np.asarray(turned, dtype=np.float32)


SHIFTS: dict[str, Callable[[Images, int], Images]] = {f.__name__: f for f in (noise, blur, rotation)}
"""By name, from images (N, channels, height, width) and a severity to images of the same shape."""
