"""The encoders, the inputs that must not change their output, and zero-shot classification."""

from dataclasses import replace

import pytest
import torch
from torch.nn import functional as F

from lessons.lesson_01_vit.model import VisionTransformer
from lessons.lesson_02_clip.model import (
    CLIP,
    CLIPConfig,
    SigLIP,
    SigLIPConfig,
    TextEncoder,
    TextEncoderConfig,
    clip_vision_config,
)
from lessons.lesson_02_clip.model.zero_shot import class_vectors, classify, ensemble, modality_gap, recall_at

IMAGE = clip_vision_config(image_size=8, patch_size=4, width=20, depth=2, heads=5, mlp_dim=24)
TEXT = TextEncoderConfig(vocab_size=30, context_length=8, width=16, depth=2, heads=4, mlp_dim=24)
CONFIG = CLIPConfig(IMAGE, TEXT, embedding=12)
SIGLIP_IMAGE = replace(IMAGE, class_token=False, pooling="attention", patch_bias=True, pre_norm=False)
SIGLIP = SigLIPConfig(SIGLIP_IMAGE, replace(TEXT, causal=False, pooling="last"))
BOTH = pytest.mark.parametrize("model", [CLIP(CONFIG), SigLIP(SIGLIP)], ids=["CLIP", "SigLIP"])
CAPTIONS = torch.tensor([[1, 5, 9, 29, 29, 29, 29, 29], [1, 5, 9, 7, 3, 4, 6, 29]])


@BOTH
@torch.no_grad()
def test_vectors_have_length_one(model):
    images, token_ids = torch.randn(3, 3, 8, 8), CAPTIONS
    for vectors in (model.encode_images(images), model.encode_texts(token_ids)):
        torch.testing.assert_close(vectors.norm(dim=-1), torch.ones(len(vectors)))
    assert model(images, token_ids).shape == (3, 2)
    # Each image and each text is encoded independently.
    torch.testing.assert_close(model(images[1:2], token_ids[1:]), model(images, token_ids)[1:2, 1:], atol=1e-5, rtol=0)


@BOTH
@torch.no_grad()
def test_logits_grow_with_the_scale(model):
    images, token_ids = torch.randn(3, 3, 8, 8), CAPTIONS
    before = model(images, token_ids)
    model.log_scale += 1.0
    after = model(images, token_ids)
    model.log_scale -= 1.0
    ratio = (after - after.mean()) / (before - before.mean())
    torch.testing.assert_close(ratio, torch.full_like(ratio, torch.e), atol=1e-3, rtol=0)


@BOTH
def test_every_parameter_learns(model):
    model.zero_grad()
    images, token_ids = torch.randn(2, 3, 8, 8), CAPTIONS
    model.loss(model.encode_images(images), model.encode_texts(token_ids)).backward()
    # A bias of the keys adds a constant to all scores of a query, which does not change the softmax.
    constant = [
        name for name, p in model.named_parameters() if not p.grad.abs().max() > 1e-8 and "key.bias" not in name
    ]
    assert not constant


def test_the_scale_has_a_gradient_at_its_limit():
    model = CLIP(CONFIG)
    with torch.no_grad():
        model.log_scale.fill_(9.0)
    # Every pair mismatches, so a smaller scale would lower the loss.
    images = F.normalize(torch.eye(12)[:4], dim=-1)
    loss = model.loss(images, images.roll(1, 0))
    loss.backward()
    assert model.logit_scale.item() == pytest.approx(100.0) and model.log_scale.grad > 1


@torch.no_grad()
def test_padding_after_the_end_token_has_no_effect():
    encoder = TextEncoder(TEXT)
    other = CAPTIONS.clone()
    other[0, 4:] = torch.tensor([3, 8, 2, 11])
    torch.testing.assert_close(encoder(CAPTIONS), encoder(other))
    torch.testing.assert_close(encoder(CAPTIONS[:1, :4]), encoder(CAPTIONS[:1]))
    # Tokens before the end token have an effect; without causal attention, padding has one too.
    other[0, 1] = 6
    assert (encoder(CAPTIONS)[0] - encoder(other)[0]).abs().max() > 1e-3
    bidirectional = TextEncoder(replace(TEXT, causal=False))
    assert (bidirectional(CAPTIONS)[0] - bidirectional(CAPTIONS[:, :4])[0]).abs().max() > 1e-3


@torch.no_grad()
def test_the_order_of_words_matters():
    encoder = TextEncoder(TEXT)
    a, b = torch.tensor([[1, 5, 9, 29]]), torch.tensor([[1, 9, 5, 29]])
    assert (encoder(a) - encoder(b)).abs().max() > 1e-3


@torch.no_grad()
def test_the_end_token_is_found_by_its_id_or_as_the_largest_id():
    largest, by_id, last = (
        TextEncoder(replace(TEXT, **change)) for change in ({}, {"end_token": 7}, {"pooling": "last"})
    )
    assert largest.pooled_index(CAPTIONS).tolist() == [3, 7]
    assert by_id.pooled_index(CAPTIONS[1:]).tolist() == [3]
    assert last.pooled_index(CAPTIONS).tolist() == [7, 7]


def test_a_caption_longer_than_the_context_is_refused():
    with pytest.raises(ValueError, match="9 tokens do not fit into a context of 8"):
        TextEncoder(TEXT)(torch.zeros(1, 9, dtype=torch.long))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"activation": "relu"}, "'relu'"),
        ({"pooling": "first"}, "'first'"),
        ({"heads": 5}, "5 heads"),
        ({"end_token": 30}, "end_token is 30"),
    ],
)
def test_invalid_configs_are_refused(change, message):
    with pytest.raises(ValueError, match=message):
        replace(TEXT, **change)
    if "activation" in change:
        with pytest.raises(ValueError, match=message):
            replace(IMAGE, **change)


def test_siglip_needs_attention_pooling():
    with pytest.raises(ValueError, match="pooling is 'class'"):
        SigLIPConfig(IMAGE, TEXT)


@torch.no_grad()
def test_the_output_follows_from_the_last_hidden_state():
    encoder, images = VisionTransformer(IMAGE), torch.randn(2, 3, 8, 8)
    states = encoder.hidden_states(images)
    assert len(states) == IMAGE.depth + 1
    torch.testing.assert_close(encoder.norm(states[-1])[:, 0], encoder(images))
    torch.testing.assert_close(encoder.norm(states[-1]), encoder.features(images))


# ── Zero-shot ─────────────────────────────────────────────────────────────────────────────────────────────────────────


def test_a_class_vector_is_the_mean_direction_of_its_prompts():
    model, tokenized = CLIP(CONFIG), []

    def tokenize(texts):
        tokenized.extend(texts)
        return CAPTIONS[torch.arange(len(texts)) % 2]

    vectors = class_vectors(model.encode_texts, tokenize, ["cat", "dog"], ["a {}", "the {}"])
    assert tokenized == ["a cat", "the cat", "a dog", "the dog"]
    with torch.no_grad():
        mean = model.encode_texts(CAPTIONS).mean(dim=0)
    torch.testing.assert_close(vectors, (mean / mean.norm()).expand(2, -1))
    with pytest.raises(ValueError, match=r"'a cat' has no \{\}"):
        class_vectors(model.encode_texts, tokenize, ["cat"], ["a {}", "a cat"])


def test_the_most_similar_class_is_predicted():
    classes = torch.eye(3)
    images = F.normalize(torch.tensor([[0.1, 0.9, 0.2], [0.8, 0.1, 0.1], [0.0, 0.3, 0.7]]), dim=-1)
    assert classify(images, classes).tolist() == [1, 0, 2]
    assert ensemble(classes[None]).shape == (1, 3)


def test_recall_ranks_ties_before_the_match():
    similarity = torch.tensor([[0.9, 0.5, 0.1], [0.7, 0.2, 0.6], [0.3, 0.3, 0.3]])
    matches = torch.tensor([0, 2, 1])
    assert [round(recall_at(k, similarity, matches).item(), 4) for k in (1, 2, 3)] == [0.3333, 0.6667, 1.0]


def test_the_modality_gap_is_the_distance_of_the_means():
    images, texts = torch.tensor([[1.0, 0.0], [0.0, 1.0]]), torch.tensor([[-1.0, 0.0], [0.0, 1.0]])
    assert modality_gap(images, texts) == pytest.approx(1.0)
    assert modality_gap(images, images) == 0.0
