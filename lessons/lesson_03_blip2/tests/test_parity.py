"""Equality of Q-Former and retriever with the published classes, in both directions, with sizes that all differ."""

import pytest
import torch
from safetensors.torch import load_file, save_file
from transformers import (
    Blip2Config,
    Blip2ForImageTextRetrieval,
    Blip2QFormerConfig,
    Blip2QFormerModel,
    Blip2VisionConfig,
)

from lessons.lesson_03_blip2.model import QFormer, Retriever
from lessons.lesson_03_blip2.tests.published_models import (
    QFORMER,
    QUERIES,
    TEXT,
    VISION,
    assert_same_files,
    close,
    load_published,
)
from shared.testing import redraw_weights

# ── The Q-Former ──────────────────────────────────────────────────────────────────────────────────────────────────────

QFORMERS = {
    "every other block": {"num_hidden_layers": 3},
    "every third block": {"num_hidden_layers": 5, "cross_attention_frequency": 3},
    "every block": {"num_hidden_layers": 2, "cross_attention_frequency": 1},
    "with text": {"num_hidden_layers": 3, "use_qformer_text_input": True},
}


def assert_same_qformer(published, model):
    context = torch.randn(2, 7, 20)
    with torch.no_grad():
        for queries, text in ((4, 0), (1, 0), (4, 3), (0, 3)):
            if text and not published.config.use_qformer_text_input:
                continue
            x = torch.randn(2, queries + text, 24)
            expected = published(x, query_length=queries, encoder_hidden_states=context if queries else None)
            actual = model(x, queries=queries, context=context if queries else None)
            close(actual, expected.last_hidden_state)


@pytest.mark.parametrize("case", QFORMERS)
def test_qformer_both_ways(case, tmp_path):
    published = redraw_weights(
        Blip2QFormerModel(Blip2QFormerConfig(**QFORMER, encoder_hidden_size=20, **QFORMERS[case])), buffers=True
    )
    published.save_pretrained(tmp_path / "published")
    model = QFormer.from_pretrained(tmp_path / "published")
    assert_same_qformer(published, model)
    model.save_pretrained(tmp_path / "model")
    assert_same_files(tmp_path)
    assert_same_qformer(load_published(Blip2QFormerModel, tmp_path / "model"), model)


def test_cross_attention_maps_equal_the_published_ones(tmp_path):
    config = Blip2QFormerConfig(**QFORMER, encoder_hidden_size=20, num_hidden_layers=3)
    published = redraw_weights(Blip2QFormerModel._from_config(config, attn_implementation="eager"), buffers=True)
    published.save_pretrained(tmp_path)
    model = QFormer.from_pretrained(tmp_path)
    queries, context = torch.randn(2, 4, 24), torch.randn(2, 7, 20)
    with torch.no_grad():
        expected = published(queries, encoder_hidden_states=context, output_attentions=True).cross_attentions
    maps = model.cross_attention_maps(queries, context)
    assert len(maps) == len(expected) == 2
    for actual, reference in zip(maps, expected, strict=True):
        torch.testing.assert_close(actual.float(), reference, atol=1e-5, rtol=0)


# ── Image–text retrieval ──────────────────────────────────────────────────────────────────────────────────────────────


def retriever(**vision):
    config = Blip2Config(
        vision_config=Blip2VisionConfig(**VISION, image_size=12, **vision),
        qformer_config=Blip2QFormerConfig(**QFORMER, num_hidden_layers=3, **TEXT),
        num_query_tokens=QUERIES,
        image_text_hidden_size=11,
    )
    return redraw_weights(Blip2ForImageTextRetrieval(config), buffers=True)


def assert_same_retriever(published, model):
    images, tokens = torch.randn(3, 3, 12, 12), torch.randint(1, 37, (3, 8))
    segments = torch.tensor([[0] * 8, [0] * 5 + [-1] * 3, [0] * 2 + [-1] * 6])
    attention_mask = (segments >= 0).long()
    with torch.no_grad():
        compared = published(images, tokens, attention_mask=attention_mask)
        matched = published(images, tokens, attention_mask=attention_mask, use_image_text_matching_head=True)
        features = model.vision_encoder.features(images)
        close(features, compared.vision_model_output.last_hidden_state)
        close(model.image_embeddings(features), compared.image_embeds)
        close(model.text_embeddings(tokens, segments), compared.text_embeds)
        close(model(images, tokens, segments), compared.logits_per_image)
        close(model.matching_logits(features, tokens, segments), matched.logits_per_image)


@pytest.mark.parametrize("vision", [{}, {"qkv_bias": False}, {"layer_norm_eps": 0.1}], ids=["plain", "no bias", "eps"])
def test_retriever_both_ways(vision, tmp_path):
    published = retriever(**vision)
    published.save_pretrained(tmp_path / "published")
    model = Retriever.from_pretrained(tmp_path / "published")
    assert_same_retriever(published, model)
    model.save_pretrained(tmp_path / "model")
    assert_same_files(tmp_path)
    assert_same_retriever(load_published(Blip2ForImageTextRetrieval, tmp_path / "model"), model)


def test_files_of_version_4_also_hold_position_ids(tmp_path):
    published = retriever()
    published.save_pretrained(tmp_path)
    tensors = load_file(tmp_path / "model.safetensors")
    save_file(tensors | {"embeddings.position_ids": torch.arange(19)[None]}, tmp_path / "model.safetensors")
    assert_same_retriever(published, Retriever.from_pretrained(tmp_path))
