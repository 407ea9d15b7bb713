"""Linear probes of patch features: does the feature of a patch hold the attributes of the object that it shows?"""

from collections.abc import Mapping
from functools import lru_cache
from statistics import fmean
from typing import NamedTuple

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn
from torch.nn import functional as F

from data.toybox.heldout import TEST_SEED, sample_scenes
from data.toybox.regions import patch_objects
from data.toybox.scene import COLORS, SHAPES, SIZES, TEXTURES
from data.toybox.tensors import normalize_pixels, render_tensors
from lessons.lesson_01_vit.model import VisionTransformer

ATTRIBUTES = {"color": COLORS, "shape": SHAPES, "size": SIZES, "texture": TEXTURES}
OBJECTS = (1, 5)
PROBE_SCENES, TEST_SCENES = 1200, 400
"""Number of scenes that the probes are trained on, and of scenes per split that they are tested on."""
PROBE_SEED = 77


class Patches(NamedTuple):
    """Hold images, the places of all patches that show an object, and the objects' attributes.

    places  [patches, 2]: index of the image, and of the patch in it
    labels  for each of `ATTRIBUTES`, the index of its value per patch
    """

    pixels: Float[Tensor, "scenes 3 size size"]
    places: Int[Tensor, "patches 2"]
    labels: Mapping[str, Int[Tensor, "patches"]]


@lru_cache(4)
def object_patches(split: str, seed: int, count: int, patches: int) -> Patches:
    """Return all of the patches × patches squares of a split's first `count` scenes that show an object."""
    scenes = sample_scenes(split, seed, count, OBJECTS)
    places, values = [], []
    for number, scene in enumerate(scenes):
        for row, indices in enumerate(patch_objects(scene, patches)):
            for column, index in enumerate(indices):
                if index >= 0:
                    places.append((number, patches * row + column))
                    values.append(scene.objects[index])
    labels = {
        name: torch.tensor([options.index(getattr(value, name)) for value in values])
        for name, options in ATTRIBUTES.items()
    }
    return Patches(normalize_pixels(render_tensors(scenes)), torch.tensor(places), labels)


def probe_patches(image_encoder: VisionTransformer, *, layer: int = -2) -> dict[str, float]:
    """Return the accuracy of a linear probe per attribute, and their mean, on seen and on unseen combinations.

    layer  the hidden state that is probed; −2 enters the last block

    The probes are trained on patches of training scenes, and tested on all patches of new scenes.
    """
    side = image_encoder.config.grid[0]
    training = object_patches("train", PROBE_SEED, PROBE_SCENES, side)
    features = patch_features(image_encoder, training, layer)
    mean, std = features.mean(dim=0), features.std(dim=0) + 1e-6
    probes = {name: fit_probe((features - mean) / std, labels) for name, labels in training.labels.items()}
    accuracies: dict[str, float] = {}
    for split, prefix in (("validation", "seen"), ("test", "unseen")):
        patches = object_patches(split, TEST_SEED, TEST_SCENES, side)
        inputs = (patch_features(image_encoder, patches, layer) - mean) / std
        with torch.no_grad():
            split_accuracies = {
                name: (probe(inputs).argmax(dim=1) == patches.labels[name]).float().mean().item()
                for name, probe in probes.items()
            }
        accuracies |= {f"patch_{name}_{prefix}": accuracy for name, accuracy in split_accuracies.items()}
        accuracies[f"patch_{prefix}"] = fmean(split_accuracies.values())
    return accuracies


@torch.no_grad()
def patch_features(image_encoder: VisionTransformer, patches: Patches, layer: int) -> Float[Tensor, "patches width"]:
    """Return the features of the given patches."""
    device, prefix = next(image_encoder.parameters()).device, image_encoder.config.prefix_tokens
    states = [
        image_encoder.hidden_states(pixels.to(device))[layer][:, prefix:].cpu() for pixels in patches.pixels.split(256)
    ]
    return torch.cat(states)[patches.places[:, 0], patches.places[:, 1]]


def fit_probe(features: Float[Tensor, "patches width"], labels: Int[Tensor, "patches"]) -> nn.Linear:
    """Fit a linear classifier by L-BFGS on the cross-entropy with a small weight decay."""
    probe = nn.Linear(features.shape[1], int(labels.max()) + 1)
    optimizer = torch.optim.LBFGS(probe.parameters(), max_iter=100, line_search_fn="strong_wolfe")

    def loss() -> Tensor:
        optimizer.zero_grad()
        value = F.cross_entropy(probe(features), labels) + 1e-4 * probe.weight.square().sum()
        value.backward()
        return value

    optimizer.step(loss)
    return probe
