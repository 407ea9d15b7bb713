"""With the same weights, the pure-Python LLaVA and the PyTorch one give the same logits, loss and gradients."""

from random import Random

import pytest
import torch

from lessons.lesson_00_foundations.decoder.model import LanguageModel
from lessons.lesson_05_llava import reference
from lessons.lesson_05_llava.model import Llava, Projector, loss_mask
from shared.finetuning import sft_loss
from shared.stdlib.decoder import Decoder
from shared.testing import redraw_weights
from shared.torch_conversion import max_abs_difference, to_stdlib, to_torch
from shared.transformer import DecoderConfig

# features, width, layers, heads, mlp_dim
SIZES = {"the reference's": (20, 24, 2, 2, 48), "odd": (7, 18, 3, 3, 10)}


def both(name):
    """The same random weights in both; they are read out of the PyTorch model by the reference's own names."""
    features, width, layers, heads, mlp_dim = SIZES[name]
    config = DecoderConfig(len(reference.WORDS), width, layers, heads, heads, mlp_dim, rotary_base=10_000.0)
    model = Llava(
        torch.nn.Identity(), Projector(features, width), LanguageModel(config), image_token_id=reference.IMAGE
    ).double()
    redraw_weights(model)
    random = Random(0)
    language = Decoder(len(reference.WORDS), width, layers, heads, mlp_dim, random)
    reference_model = reference.Llava(reference.Projector(features, width, random), language)
    reference_model.load_parameters(
        {name: parameter.flatten().tolist() for name, parameter in model.named_parameters()}
    )
    return reference_model, model, torch.randn(3, reference.PATCHES, features, dtype=torch.float64)


def rows():
    """Three conversations of equal lengths, about an image each."""
    turns = [[(question, reference.answer_to(question, digit)) for question in ("even", "next")] for digit in (3, 8, 0)]
    return [reference.expand_images(reference.conversation("<image>", pairs), reference.PATCHES) for pairs in turns]


@pytest.mark.parametrize("name", SIZES)
def test_same_weights_same_logits_loss_and_gradients(name):
    reference_model, model, features = both(name)
    tokens, segments = torch.tensor(rows()), torch.zeros(3, len(rows()[0]), dtype=torch.long)
    reference_logits = reference_model(rows(), to_stdlib(features))
    logits = model.logits(tokens, features)
    # (The PyTorch decoder turns queries and keys by angles in float32.)
    assert max_abs_difference(to_torch(reference_logits), logits) < 1e-5

    answer_mask = torch.tensor([reference.loss_mask(row) for row in rows()])
    mask = loss_mask(tokens, answer_mask, segments, image_token_id=reference.IMAGE)
    losses = reference.sft_loss(reference_logits, rows()), sft_loss(logits, tokens, mask).mean()
    # (The PyTorch loss is taken in float32, whatever the logits are.)
    torch.testing.assert_close(to_torch(losses[0]).float(), losses[1].float(), atol=1e-5, rtol=0)
    losses[0].backward()
    torch.nn.functional.cross_entropy(logits[:, :-1][mask[:, 1:]], tokens[:, 1:][mask[:, 1:]]).backward()
    gradients = {name: parameter.grad for name, parameter in model.named_parameters()}
    assert gradients.keys() == reference_model.parameters().keys()
    for name, parameter in reference_model.parameters().items():
        gradient = torch.tensor(parameter.grad, dtype=torch.float64).reshape(parameter.shape)
        torch.testing.assert_close(gradient, gradients[name], atol=1e-5, rtol=0)
        assert gradient.abs().max() > 1e-4, name


def test_text_without_an_image_is_read_alike():
    reference_model, model, _ = both("odd")
    turns = [reference.conversation("seven", [("even", "no"), ("large", "yes")])]
    assert max_abs_difference(to_torch(reference_model(turns)), model.logits(torch.tensor(turns))) < 1e-5


def test_the_projectors_are_one():
    reference_model, model, features = both("odd")
    assert (
        max_abs_difference(to_torch(reference_model.projector(to_stdlib(features))), model.projector(features)) < 1e-12
    )
