"""Data sets as shared arrays, and partitions of them over clients as index arrays."""

from fedbatch.data.arrays import arrays
from fedbatch.data.bundled import breast_cancer, digits
from fedbatch.data.dataset import Dataset
from fedbatch.data.fashion import fashion_mini, fashion_mnist, fashion_pixels
from fedbatch.data.hub import hugging_face
from fedbatch.data.partition import Partition, drawn, from_flower
from fedbatch.data.pools import long_tail, redundant
from fedbatch.data.shakespeare import shakespeare_roles
from fedbatch.data.tokenised import hugging_face_text

__all__ = [
    "Dataset",
    "Partition",
    "arrays",
    "breast_cancer",
    "digits",
    "drawn",
    "fashion_mini",
    "fashion_mnist",
    "fashion_pixels",
    "from_flower",
    "hugging_face",
    "hugging_face_text",
    "long_tail",
    "redundant",
    "shakespeare_roles",
]
