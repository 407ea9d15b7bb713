"""What such a model is for: naming pictures it has not been taught to name, and finding what fits.

A classifier has a row of weights for each class. Here the row is *written*: it is the vector of a caption of the class
(arXiv:2103.00020, section 3.1.2), so that the list of classes is a list of sentences, and can change at any time.
"""

from collections.abc import Callable, Sequence

import torch
from jaxtyping import Float, Int
from torch import Tensor

from lessons.lesson_02_clip.model.dual_encoder import unit

# A few of the templates that section 3.1.4 is about; "{}" is the class.
TEMPLATES = (
    "a photo of a {}.",
    "a bad photo of a {}.",
    "a photo of the large {}.",
    "a photo of the small {}.",
    "a close-up photo of a {}.",
    "a picture of many {}.",
    "itap of a {}.",
)


def ensemble(prompts: Float[Tensor, "classes templates embedding"]) -> Float[Tensor, "classes embedding"]:
    """One unit vector a class from the unit vectors of several prompts (section 3.1.4).

    Averaged in the space of vectors, not of probabilities: so a hundred templates cost as much as one, later.
    """
    # exercise 2.6: one class of many prompts
    return unit(prompts.mean(dim=1))
    # end exercise


@torch.no_grad()
def class_vectors(
    encode_texts: Callable[[Tensor], Tensor],
    tokenize: Callable[[Sequence[str]], Tensor],
    classes: Sequence[str],
    templates: Sequence[str] = TEMPLATES,
) -> Float[Tensor, "classes embedding"]:
    """The weights of a classifier that was never trained. Raises ValueError for a template without a place for the class."""
    if wrong := [template for template in templates if "{}" not in template]:
        raise ValueError(f"the template {wrong[0]!r} has no {{}} where the class belongs")
    prompts = [template.replace("{}", name) for name in classes for template in templates]
    return ensemble(encode_texts(tokenize(prompts)).unflatten(0, (len(classes), len(templates))))


def classify(
    images: Float[Tensor, "images embedding"], classes: Float[Tensor, "classes embedding"]
) -> Int[Tensor, "images"]:
    """The nearest class of each image."""
    return (images @ classes.T).argmax(dim=1)


def recall_at(
    k: int, similarity: Float[Tensor, "queries candidates"], own: Int[Tensor, "queries"]
) -> Float[Tensor, ""]:
    """The share of queries whose own candidate is among the `k` nearest; `own[i]` is its number (retrieval: appendix E.1).

    Of equally near candidates each is counted as before the own one: a model that gives all the same vector finds nothing.
    """
    # exercise 2.7: found among the first k
    mine = similarity.gather(1, own[:, None])
    before = (similarity >= mine).sum(dim=1) - 1
    return (before < k).float().mean()
    # end exercise


def modality_gap(images: Float[Tensor, "images embedding"], texts: Float[Tensor, "texts embedding"]) -> float:
    """How far the mean image lies from the mean text, both of unit vectors (arXiv:2203.02053, section 4.2).

    Contrast asks only that the right text be nearer than the wrong ones. It leaves images and texts in two separate
    cones, and this is the distance between them.
    """
    return (images.mean(dim=0) - texts.mean(dim=0)).norm().item()
