"""Zero-shot classification and retrieval with a dual encoder.

The weights of a classifier are one row per class. Here each row is the vector of a caption of the class
(arXiv:2103.00020, section 3.1.2). The list of classes is a list of sentences and can be changed without training.
"""

from collections.abc import Callable, Sequence

import torch
from jaxtyping import Float, Int
from torch import Tensor

from lessons.lesson_02_clip.model.dual_encoder import unit_vectors

# A few of the templates of section 3.1.4; "{}" stands for the class name.
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
    """Return one unit vector per class from the unit vectors of several prompts (section 3.1.4).

    Vectors are averaged, not probabilities: classification with a hundred templates then costs as much as with one.
    """
    # exercise 2.6: prompt ensembles
    return unit_vectors(prompts.mean(dim=1))
    # end exercise


@torch.no_grad()
def class_vectors(
    encode_texts: Callable[[Tensor], Tensor],
    tokenize: Callable[[Sequence[str]], Tensor],
    classes: Sequence[str],
    templates: Sequence[str] = TEMPLATES,
) -> Float[Tensor, "classes embedding"]:
    """Return the weights of a zero-shot classifier. Raises ValueError for a template without a place for the class."""
    if wrong := [template for template in templates if "{}" not in template]:
        raise ValueError(f"the template {wrong[0]!r} has no {{}} where the class name is inserted")
    prompts = [template.replace("{}", name) for name in classes for template in templates]
    return ensemble(encode_texts(tokenize(prompts)).unflatten(0, (len(classes), len(templates))))


def classify(
    images: Float[Tensor, "images embedding"], classes: Float[Tensor, "classes embedding"]
) -> Int[Tensor, "images"]:
    """Return the most similar class of each image."""
    return (images @ classes.T).argmax(dim=1)


def recall_at(
    k: int, similarity: Float[Tensor, "queries candidates"], matches: Int[Tensor, "queries"]
) -> Float[Tensor, ""]:
    """Return the fraction of queries whose match, candidate `matches[i]`, is among the `k` most similar (appendix E.1).

    Candidates as similar as the match are ranked before it, so a model that returns one vector for everything scores 0.
    """
    # exercise 2.7: recall at k
    match_similarity = similarity.gather(1, matches[:, None])
    rank = (similarity >= match_similarity).sum(dim=1) - 1
    return (rank < k).float().mean()
    # end exercise


def modality_gap(images: Float[Tensor, "images embedding"], texts: Float[Tensor, "texts embedding"]) -> float:
    """Return the distance between the mean image and the mean text vector, all unit vectors (arXiv:2203.02053, § 4.2).

    The loss only requires that matching texts are more similar than others. Images and texts can therefore occupy two
    separate cones.
    """
    return (images.mean(dim=0) - texts.mean(dim=0)).norm().item()
