"""The pure-Python first stage and the PyTorch one are equal: same weights, same losses, same gradients."""

from random import Random

import pytest
import torch

from lessons.lesson_03_blip2 import reference
from lessons.lesson_03_blip2.model import TASKS, FirstStage, QFormerConfig, Retriever, RetrieverConfig, task_mask_matrix
from lessons.lesson_03_blip2.model.losses import hard_negative_probabilities
from shared.testing import redraw_weights
from shared.torch_conversion import to_stdlib, to_torch

TEXTS = [reference.tokenize(name) for name in ("six", "seven", "one", "three")]
NEGATIVES = [[1, 3, 0, 2], [2, 0, 3, 1]]  # of texts, of images
SIZES = {"the reference's": reference.Sizes(), "odd": reference.Sizes(3, 15, 3, 5, 14, 11, 7)}


def both(name):
    """Return both models with the same random weights, and features; parameter names are the same in both."""
    sizes = SIZES[name]
    qformer = QFormerConfig(sizes.width, sizes.depth, sizes.heads, sizes.mlp_dim, sizes.context_width, text_input=True)
    config = RetrieverConfig(qformer, sizes.queries, reference.VOCAB_SIZE, reference.MAX_TOKENS, sizes.projection_dim)
    model = FirstStage(Retriever(config, torch.nn.Identity()), reference.DECODE).double()
    redraw_weights(model)
    torch.nn.init.constant_(model.log_temperature, -0.7)
    plain = reference.FirstStage(reference.Retriever(sizes, Random(0)), Random(0))
    plain.load_parameters({name: parameter.flatten().tolist() for name, parameter in model.named_parameters()})
    features = torch.randn(len(TEXTS), 6, sizes.context_width, dtype=torch.float64)
    return plain, model, features


def text_tensors():
    token_ids = torch.tensor(reference.pad(TEXTS))
    segments = torch.tensor([[0] * len(text) + [-1] * (reference.MAX_TOKENS - len(text)) for text in TEXTS])
    return token_ids, segments


@pytest.mark.parametrize("name", SIZES)
def test_same_weights_same_losses_and_gradients(name, monkeypatch):
    plain, model, features = both(name)
    losses = plain.losses(to_stdlib(features), TEXTS, Random(0), negatives=NEGATIVES)
    (losses["contrastive"] + losses["matching"] + losses["generation"]).backward()

    drawn = iter(NEGATIVES)
    monkeypatch.setattr(torch, "multinomial", lambda probabilities, count: torch.tensor(next(drawn))[:, None])
    total, expected = model(features, *text_tensors())
    total.mean().backward()

    assert losses.keys() == expected.keys()
    for task in losses:
        torch.testing.assert_close(to_torch(losses[task]), expected[task].mean(), atol=1e-9, rtol=0)
    gradients = {name: parameter.grad for name, parameter in model.named_parameters()}
    assert gradients.keys() == plain.parameters().keys()
    for name, parameter in plain.parameters().items():
        gradient = torch.tensor(parameter.grad, dtype=torch.float64).reshape(parameter.shape)
        torch.testing.assert_close(gradient, gradients[name], atol=1e-8, rtol=0)
        # The bias of the keys adds one number to all scores of a query, which the softmax ignores.
        assert name.endswith("key.bias") or gradient.abs().max() > 1e-6, name


@pytest.mark.parametrize("name", SIZES)
def test_same_image_embeddings_and_cross_attention_maps(name):
    plain, model, features = both(name)
    images = to_stdlib(features)
    embeddings = plain.retriever.image_embeddings(images)
    torch.testing.assert_close(to_torch(embeddings), model.retriever.image_embeddings(features), atol=1e-9, rtol=0)
    maps = plain.retriever.qformer.cross_attention_maps(plain.retriever.expanded_queries(len(features)), images)
    queries = model.retriever.queries.expand(len(features), -1, -1)
    expected = model.retriever.qformer.cross_attention_maps(queries, features)
    assert len(maps) == len(expected) == (SIZES[name].depth + 1) // 2
    for actual, reference_map in zip(maps, expected, strict=True):
        torch.testing.assert_close(to_torch(actual), reference_map, atol=1e-9, rtol=0)


@pytest.mark.parametrize("task", TASKS)
def test_the_masks_are_the_same(task):
    lengths = [len(text) for text in TEXTS]
    mask = to_torch(reference.task_mask(task, 3, lengths, reference.MAX_TOKENS))[:, 0] == 0
    assert torch.equal(mask, task_mask_matrix(task, 3, text_tensors()[1]))


def test_hard_negatives_have_the_same_probabilities():
    scores = torch.randn(5, 5, dtype=torch.float64) * 3
    probabilities = torch.tensor(reference.hard_negative_probabilities(to_stdlib(scores)), dtype=torch.float64)
    torch.testing.assert_close(probabilities, hard_negative_probabilities(scores), atol=1e-9, rtol=0)
