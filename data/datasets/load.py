"""Load an image data set by name, for example `DATA=cifar10` or `DATA=folder:my_images`."""

from collections.abc import Callable

from data.datasets.cifar10 import cifar10
from data.datasets.digits import digits
from data.datasets.fashion_mnist import fashion_mnist
from data.datasets.image_dataset import ImageDataset
from data.datasets.image_folder import image_folder
from shared.errors import CourseError

DATASETS: dict[str, Callable[[], ImageDataset]] = {
    "digits": digits,
    "fashion_mnist": fashion_mnist,
    "cifar10": cifar10,
}


def load(name: str) -> ImageDataset:
    """Return a data set by name, or your own images for "folder:PATH".

    Raises CourseError for an unknown name, or when the data set is unavailable.
    """
    if name.startswith("folder:"):
        return image_folder(name.removeprefix("folder:"))
    if name not in DATASETS:
        raise CourseError(f"no data set {name!r}: choose one of {', '.join(DATASETS)}, or folder:PATH")
    return DATASETS[name]()
