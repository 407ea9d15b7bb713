"""Which parameters each stage trains, and how BLIP-2 combines image and text."""

import pytest
import torch

from lessons.lesson_03_blip2.model import (
    Blip2,
    FirstStage,
    LinearConnector,
    MeanPoolingConnector,
    QFormerConnector,
    first_stage,
    second_stage,
)
from lessons.lesson_03_blip2.model.losses import image_text_similarity, language_modeling_loss
from lessons.lesson_03_blip2.tests.small_models import (
    VOCAB_SIZE,
    WITHOUT_TEXT,
    language_model,
    pairs,
    retriever,
    vision_encoder,
)
from shared.pretrained.digest import weights_digest
from shared.training import LossSum, TrainingConfig, train
from shared.training.loss_sum import add_losses
from shared.transformer import Sampling


def stage_config(steps, learning_rate=3e-3):
    return TrainingConfig(steps=steps, learning_rate=learning_rate, log_every=steps, warmup_steps=5)


def test_the_first_stage_learns_all_three_tasks_and_freezes_the_vision_encoder():
    torch.manual_seed(1)
    model = FirstStage(retriever(), decode_token_id=1)
    features, tokens, _ = pairs()
    # Four images that differ, with four captions: [begin, name, name, end, end, end].
    tokens = torch.tensor([[0, 5 + k, 9 + k, 2, 2, 2] for k in range(4)])
    segments = torch.where(torch.arange(6) < 4, 0, -1).expand(4, 6)
    before, encoder_before = (
        {n: p.clone() for n, p in model.named_parameters()},
        weights_digest(model.retriever.vision_encoder),
    )
    result = train(
        model,
        lambda step: (features, tokens, segments),
        lambda m, batch: m(*batch),
        stage_config(80),
        stages=first_stage(80),
    )
    assert weights_digest(model.retriever.vision_encoder) == encoder_before
    unmoved = [n for n, p in model.named_parameters() if torch.equal(p, before[n]) and ".vision_encoder." not in n]
    # The bias of the keys has no effect, and weight decay keeps a zero at zero.
    assert [name for name in unmoved if not name.endswith("key.bias")] == []
    last = result.history[-1]
    with torch.no_grad():
        scores = image_text_similarity(
            model.retriever.image_embeddings(features), model.retriever.text_embeddings(tokens, segments)
        )
        generated = model.generation_logits(features, tokens, segments).argmax(-1)
        true_pairs = model.retriever.matching_logits(features, tokens, segments).argmax(-1)
        false_pairs = model.retriever.matching_logits(features, tokens.roll(1, 0), segments).argmax(-1)
    assert (scores.argmax(1) == torch.arange(4)).all() and (scores.argmax(0) == torch.arange(4)).all()
    assert torch.equal(generated[:, :3], tokens[:, 1:4])
    assert (true_pairs == 1).all() and (false_pairs == 0).all()
    assert last["loss"] < 4.0


def test_the_generation_losses_of_two_small_batches_add_up_to_that_of_the_large_batch():
    """Captions of unequal lengths; the other two losses take their negatives from the batch, so they cannot add up."""
    torch.manual_seed(3)
    model = FirstStage(retriever(), decode_token_id=1, tokens_per_caption=3.5).double()
    features, tokens, _ = pairs()
    features, tokens = features.double(), tokens.clone()
    lengths = torch.tensor([2, 3, 6, 5])
    segments = torch.where(torch.arange(tokens.shape[1]) < lengths[:, None], 0, -1)

    def step(parts: list[slice]) -> tuple[float, list[torch.Tensor]]:
        model.zero_grad()
        losses = [
            LossSum.of_mean(model._generation_loss(features[rows], tokens[rows], segments[rows]), len(features[rows]))
            for rows in parts
        ]
        summed = add_losses(losses)
        summed.total.backward()
        return summed.mean().item(), [p.grad / summed.terms for p in model.parameters() if p.grad is not None]

    mean, gradients = step([slice(0, 4)])
    accumulated_mean, accumulated = step([slice(0, 2), slice(2, 4)])
    assert accumulated_mean == pytest.approx(mean, rel=1e-6)
    torch.testing.assert_close(accumulated, gradients, rtol=1e-6, atol=1e-9)
    # With the mean number of tokens of all captions, the loss is the mean over all tokens.
    model.tokens_per_caption = (lengths - 1).double().mean().item()
    loss, parts = model(features, tokens, segments)
    expected = language_modeling_loss(model.generation_logits(features, tokens, segments), tokens, segments)
    torch.testing.assert_close(parts["generation"].mean(), expected.detach())
    assert loss.terms == 4
    torch.testing.assert_close(loss.total.detach(), sum(part.total for part in parts.values()))


CONNECTORS = {
    "qformer": lambda: QFormerConnector(WITHOUT_TEXT, 3, 16),
    "linear": lambda: LinearConnector(20, 16),
    "mean": lambda: MeanPoolingConnector(20, 16),
}


@pytest.mark.parametrize("name", CONNECTORS)
def test_the_second_stage_trains_the_connector_only(name):
    torch.manual_seed(2)
    model = Blip2(vision_encoder(), CONNECTORS[name](), language_model())
    features = torch.randn(4, 7, 20)
    tokens = torch.tensor([[0, 5 + k, 9 + k, 2] for k in range(4)])
    segments = torch.zeros_like(tokens)
    frozen = weights_digest(model.vision_encoder), weights_digest(model.language_model)
    connector = weights_digest(model.connector)
    before = model.loss(features, tokens, segments).item()
    train(
        model,
        lambda step: (features, tokens, segments),
        lambda m, batch: m.loss(*batch),
        stage_config(40, 2e-2),
        stages=second_stage(40),
    )
    assert (weights_digest(model.vision_encoder), weights_digest(model.language_model)) == frozen
    assert weights_digest(model.connector) != connector
    assert model.loss(features, tokens, segments).item() < before - 0.2


def test_gradients_flow_through_the_frozen_language_model():
    model = Blip2(vision_encoder(), QFormerConnector(WITHOUT_TEXT, 3, 16), language_model())
    for part in (model.vision_encoder, model.language_model):
        part.requires_grad_(False)
    features, tokens, segments = pairs()
    model.loss(features, tokens, segments).backward()
    assert all(
        parameter.grad is None for parameter in [*model.vision_encoder.parameters(), *model.language_model.parameters()]
    )
    assert all(
        parameter.grad.abs().max() > 0
        for name, parameter in model.connector.named_parameters()
        if not name.endswith("key.bias")
    )


@torch.no_grad()
def test_the_connector_starts_from_the_first_stage():
    first, connector = retriever(queries=3), QFormerConnector(WITHOUT_TEXT, 3, 16)
    features = torch.randn(2, 7, 20)
    connector.load_first_stage(first)
    torch.testing.assert_close(connector(features), connector.projection(first.query_states(features)))
    with pytest.raises(ValueError, match="other sizes: queries differ"):
        connector.load_first_stage(retriever(queries=4))


@torch.no_grad()
def test_the_image_precedes_the_text():
    model = Blip2(vision_encoder(), QFormerConnector(WITHOUT_TEXT, 3, 16), language_model())
    images = torch.randn(2, 3, 12, 12)
    tokens = torch.randint(0, VOCAB_SIZE, (2, 5))
    logits = model(images, tokens)
    assert logits.shape == (2, 5, VOCAB_SIZE)
    prefix = model.connector(model.vision_encoder.features(images))
    expected = model.language_model(embeddings=torch.cat([prefix, model.language_model.embedding(tokens)], dim=1))
    torch.testing.assert_close(logits, expected[:, 3:])
    assert (model(images.flip(0), tokens) - logits).abs().max() > 1e-4
    # Padding after a text does not change its logits.
    segments = torch.tensor([[0, 0, 0, -1, -1], [0] * 5])
    torch.testing.assert_close(model(images, tokens, segments)[0, :3], logits[0, :3], atol=1e-5, rtol=0)


@torch.no_grad()
def test_prompts_of_different_lengths_are_continued_as_each_alone():
    model = Blip2(vision_encoder(), QFormerConnector(WITHOUT_TEXT, 3, 16), language_model())
    features = torch.randn(3, 7, 20)
    prompts = [torch.randint(0, VOCAB_SIZE, (length,)) for length in (4, 1, 2)]
    together = model.generate(features, prompts, Sampling(6))
    alone = [model.generate(features[k : k + 1], prompts[k : k + 1], Sampling(6))[0] for k in range(3)]
    assert all(torch.equal(a, b) for a, b in zip(together, alone, strict=True))
    # The first generated token is the most likely one after the prompt.
    assert together[0][0] == model.logits(features[:1], prompts[0][None])[0, -1].argmax()
