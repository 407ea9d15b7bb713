"""A data set of images by its name, as `DATA=cifar10` gives it."""

from collections.abc import Callable

from data.datasets.cifar10 import cifar10
from data.datasets.digits import digits
from data.datasets.fashion_mnist import fashion_mnist
from data.datasets.image_dataset import ImageDataset
from shared.errors import CourseError

DATASETS: dict[str, Callable[[], ImageDataset]] = {
    "digits": digits,
    "fashion_mnist": fashion_mnist,
    "cifar10": cifar10,
}


def load(name: str) -> ImageDataset:
    """Return a data set. Raises CourseError for an unknown name, or when the data set is not to be had."""
    if name not in DATASETS:
        raise CourseError(f"no data set {name!r}: choose one of {', '.join(DATASETS)}")
    return DATASETS[name]()
