"""The pure-Python first stage and the PyTorch one are the same mathematics: same weights, same losses, same gradients."""

from random import Random

import pytest
import torch

from lessons.lesson_03_blip2 import reference
from lessons.lesson_03_blip2.model import FirstStage, QFormerConfig, Retriever, RetrieverConfig, visible
from shared.stdlib.tensor import Tensor

TEXTS = [reference.spelled(name) for name in ("six", "seven", "one", "three")]
NEGATIVES = [[1, 3, 0, 2], [2, 0, 3, 1]]  # other texts, other images
# queries, width, depth, heads, mlp_dim, context width, shared width
SIZES = {"the reference's": (4, 16, 2, 2, 32, 22, 12), "odd": (3, 15, 3, 5, 14, 11, 7)}


def both(name):
    """The same random weights in both; they are read out of the PyTorch model by the reference's own names."""
    queries, width, depth, heads, mlp_dim, context_width, shared = SIZES[name]
    config = RetrieverConfig(
        QFormerConfig(width, depth, heads, mlp_dim, context_width, reads_text=True),
        queries,
        reference.VOCABULARY,
        reference.TEXT,
        shared,
    )
    model = FirstStage(Retriever(config, torch.nn.Identity()), reference.WRITE).double()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.copy_(torch.randn_like(parameter) * 0.3 + (0.5 if parameter.ndim == 1 else 0.0))
        model.log_temperature.fill_(-0.7)
    plain = reference.FirstStage(reference.Retriever(*SIZES[name], Random(0)), Random(0))
    plain.load_parameters({name: parameter.flatten().tolist() for name, parameter in model.named_parameters()})
    features = torch.randn(len(TEXTS), 6, context_width, dtype=torch.float64)
    return plain, model, features


def to_torch(tensor):
    return torch.tensor(tensor.data, dtype=torch.float64).reshape(tensor.shape)


def as_stdlib(tensor):
    return Tensor(tensor.flatten().tolist(), tuple(tensor.shape))


def text_tensors():
    tokens = torch.tensor(reference.padded(TEXTS))
    segments = torch.tensor([[0] * len(text) + [-1] * (reference.TEXT - len(text)) for text in TEXTS])
    return tokens, segments


@pytest.mark.parametrize("name", SIZES)
def test_same_weights_same_losses_and_gradients(name, monkeypatch):
    plain, model, features = both(name)
    here = plain.losses(as_stdlib(features), TEXTS, Random(0), negatives=NEGATIVES)
    (here["contrastive"] + here["matching"] + here["generation"]).backward()

    drawn = iter(NEGATIVES)
    monkeypatch.setattr(torch, "multinomial", lambda chances, count: torch.tensor(next(drawn))[:, None])
    total, there = model(features, *text_tensors())
    total.backward()

    assert here.keys() == there.keys()
    for task in here:
        torch.testing.assert_close(to_torch(here[task]), there[task], atol=1e-9, rtol=0)
    gradients = {name: parameter.grad for name, parameter in model.named_parameters()}
    assert gradients.keys() == plain.parameters().keys()
    for name, parameter in plain.parameters().items():
        gradient = torch.tensor(parameter.grad, dtype=torch.float64).reshape(parameter.shape)
        torch.testing.assert_close(gradient, gradients[name], atol=1e-8, rtol=0)
        # A bias of the keys adds one number to all scores of a query, which softmax does not see.
        assert name.endswith("key.bias") or gradient.abs().max() > 1e-6, name


@pytest.mark.parametrize("name", SIZES)
def test_the_queries_look_alike(name):
    plain, model, features = both(name)
    vectors, maps = plain.retriever.image_vectors(as_stdlib(features))
    torch.testing.assert_close(to_torch(vectors), model.retriever.image_vectors(features), atol=1e-9, rtol=0)
    queries = model.retriever.queries.expand(len(features), -1, -1)
    expected = model.retriever.qformer.cross_attention_maps(queries, features)
    assert len(maps) == len(expected) == (SIZES[name][2] + 1) // 2
    for here, there in zip(maps, expected, strict=True):
        torch.testing.assert_close(to_torch(here), there, atol=1e-9, rtol=0)


@pytest.mark.parametrize("task", ["contrastive", "matching", "generation"])
def test_the_masks_are_the_same(task):
    """Of padding the reference says nothing else than that nobody sees it; here it also sees nobody."""
    lengths = [len(text) for text in TEXTS]
    spelled_out = to_torch(reference.task_mask(task, 3, lengths, reference.TEXT))[:, 0] == 0
    assert torch.equal(spelled_out, visible(task, 3, text_tensors()[1]))


def test_hard_negatives_are_drawn_by_the_same_chances():
    from lessons.lesson_03_blip2.model.losses import negative_chances

    scores = torch.randn(5, 5, dtype=torch.float64) * 3
    given = torch.tensor(reference.negative_chances(as_stdlib(scores)), dtype=torch.float64)
    torch.testing.assert_close(given, negative_chances(scores), atol=1e-9, rtol=0)
