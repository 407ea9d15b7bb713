"""The Q-Former's masks, cross-attention and losses."""

import pytest
import torch
from torch import nn

from lessons.lesson_03_blip2.model import (
    TASKS,
    QFormer,
    QFormerConfig,
    RetrieverConfig,
    task_mask_matrix,
)
from lessons.lesson_03_blip2.model.losses import (
    contrastive_loss,
    hard_negative_probabilities,
    image_text_similarity,
    language_modeling_loss,
)
from lessons.lesson_03_blip2.tests.small_models import (
    SIZES,
    VOCAB_SIZE,
    WITH_TEXT,
    WITHOUT_TEXT,
    pairs,
    retriever,
)
from shared.attention import FULL_ATTENTION, Mask

# ── Masks ─────────────────────────────────────────────────────────────────────────────────────────────────────────────


def test_the_three_masks_are_those_of_figure_2():
    segments = torch.tensor([[0, 0, 0, -1]])
    masks = {task: task_mask_matrix(task, 2, segments)[0].int().tolist() for task in TASKS}
    assert masks["contrastive"] == [
        [1, 1, 0, 0, 0, 0],
        [1, 1, 0, 0, 0, 0],
        [0, 0, 1, 1, 1, 0],
        [0, 0, 1, 1, 1, 0],
        [0, 0, 1, 1, 1, 0],
        [0, 0, 0, 0, 0, 0],
    ]
    assert masks["matching"] == [[1, 1, 1, 1, 1, 0]] * 5 + [[0] * 6]
    assert masks["generation"] == [
        [1, 1, 0, 0, 0, 0],
        [1, 1, 0, 0, 0, 0],
        [1, 1, 1, 0, 0, 0],
        [1, 1, 1, 1, 0, 0],
        [1, 1, 1, 1, 1, 0],
        [0, 0, 0, 0, 0, 0],
    ]


def influence(model, task, features, tokens, segments):
    """Return how much each output (queries, text) changes when one token changes, and when the image changes."""
    before = model.query_and_text_states(task, features, tokens, segments)
    changed = tokens.clone()
    changed[:, 1] = (changed[:, 1] + 1) % VOCAB_SIZE
    after_token = model.query_and_text_states(task, features, changed, segments)
    after_image = model.query_and_text_states(task, features + 1, tokens, segments)
    return [
        [(a - b).abs().amax(dim=(0, 2)) for a, b in zip(before, after, strict=True)]
        for after in (after_token, after_image)
    ]


@torch.no_grad()
def test_changes_reach_exactly_the_tokens_that_the_mask_allows():
    """Through all blocks, a changed token or image affects the outputs that may attend to it, and no others."""
    model = retriever()
    features, tokens, _ = pairs()
    segments = torch.zeros_like(tokens)
    changes = {task: influence(model, task, features, tokens, segments) for task in TASKS}
    (query_by_token, text_by_token), (query_by_image, text_by_image) = changes["contrastive"]
    assert (query_by_token == 0).all() and (text_by_token > 1e-4).all()
    assert (query_by_image > 1e-4).all() and (text_by_image == 0).all()
    (query_by_token, text_by_token), (query_by_image, text_by_image) = changes["matching"]
    assert (query_by_token > 1e-4).all() and (text_by_image > 1e-4).all()
    (query_by_token, text_by_token), (query_by_image, text_by_image) = changes["generation"]
    assert (query_by_token == 0).all()
    assert text_by_token[0] == 0 and (text_by_token[1:] > 1e-4).all()  # no token attends to a later one
    assert (text_by_image > 1e-4).all()


@torch.no_grad()
@pytest.mark.parametrize("task", TASKS)
def test_padding_changes_nothing(task):
    model = retriever()
    features, tokens, segments = pairs()
    alone = model.query_and_text_states(task, features[2:3], tokens[2:3, :2], segments[2:3, :2])
    padded = model.query_and_text_states(task, features, tokens, segments)
    torch.testing.assert_close(padded[0][2], alone[0][0], atol=1e-5, rtol=0)
    torch.testing.assert_close(padded[1][2, :2], alone[1][0], atol=1e-5, rtol=0)


@torch.no_grad()
def test_contrastive_pass_equals_separate_image_and_text_passes():
    """Training computes in one masked pass what `image_embeddings` and `text_embeddings` compute separately."""
    model = retriever()
    features, tokens, segments = pairs()
    queries, text = model.query_and_text_states("contrastive", features, tokens, segments)
    torch.testing.assert_close(
        nn.functional.normalize(model.image_projection(queries), dim=-1),
        model.image_embeddings(features),
        atol=1e-6,
        rtol=0,
    )
    torch.testing.assert_close(
        nn.functional.normalize(model.text_projection(text[:, 0]), dim=-1),
        model.text_embeddings(tokens, segments),
        atol=1e-6,
        rtol=0,
    )


# ── The Q-Former ──────────────────────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize(("frequency", "expected"), [(1, [0, 1, 2, 3]), (2, [0, 2]), (3, [0, 3])])
def test_which_blocks_attend_to_the_image(frequency, expected):
    model = QFormer(QFormerConfig(**SIZES, cross_attention_frequency=frequency))
    assert [layer for layer, block in enumerate(model.blocks) if block.cross_attention is not None] == expected
    queries, context = torch.randn(2, 3, 24), torch.randn(2, 7, 20)
    with torch.no_grad():
        x, changed = model.norm(queries), []
        for layer, block in enumerate(model.blocks):
            if not torch.equal(block(x, 3, context, FULL_ATTENTION), block(x, 3, context + 1, FULL_ATTENTION)):
                changed.append(layer)
    assert changed == expected


@torch.no_grad()
def test_text_does_not_attend_to_the_image_itself():
    model = QFormer(WITH_TEXT)
    x, context = torch.randn(2, 8, 24), torch.randn(2, 7, 20)
    segments = torch.tensor([[0] * 5 + [1] * 3])
    mask = Mask(segment_q=segments, segment_k=segments)
    before, after = (model(x, queries=5, context=c, mask=mask) for c in (context, context + 1))
    assert torch.equal(before[:, 5:], after[:, 5:])
    assert (before[:, :5] - after[:, :5]).abs().min(dim=-1).values.max() > 0


def test_queries_and_keys_are_not_interchangeable():
    """Exchanging the projections of queries and keys changes the output: no test relies on symmetric weights."""
    model = QFormer(WITHOUT_TEXT).eval()
    queries, context = torch.randn(2, 3, 24), torch.randn(2, 7, 20)
    with torch.no_grad():
        before = model(queries, queries=3, context=context)
        for block in model.blocks:
            block.attention.query, block.attention.key = block.attention.key, block.attention.query
        assert (model(queries, queries=3, context=context) - before).abs().max() > 1e-2


def test_inputs_without_the_parts_they_need_are_refused():
    model = QFormer(WITHOUT_TEXT)
    with pytest.raises(ValueError, match="3 queries were given and no context"):
        model(torch.randn(1, 3, 24), queries=3)
    with pytest.raises(ValueError, match="2 text tokens were given to a Q-Former without text input"):
        model(torch.randn(1, 5, 24), queries=3, context=torch.randn(1, 7, 20))
    with pytest.raises(ValueError, match="width 24 does not divide into 5 heads"):
        QFormerConfig(width=24, heads=5)
    with pytest.raises(ValueError, match="text_input=True"):
        RetrieverConfig(WITHOUT_TEXT)
    with pytest.raises(ValueError, match="task is 'ranking'; choose one of contrastive"):
        task_mask_matrix("ranking", 2, torch.zeros(1, 3, dtype=torch.long))
    with pytest.raises(ValueError, match="a text has 10 tokens; this model has positions for 9"):
        retriever().text_embeddings(torch.zeros(1, 10, dtype=torch.long), torch.zeros(1, 10, dtype=torch.long))


# ── Losses ────────────────────────────────────────────────────────────────────────────────────────────────────────────


def test_hard_negatives_are_more_probable_and_never_the_true_pair():
    scores = torch.tensor([[9.0, 4.0, 1.0], [0.0, 9.0, 0.0], [-200.0, -200.0, 9.0]])
    probabilities = hard_negative_probabilities(scores)
    assert torch.equal(probabilities.diagonal(), torch.zeros(3))
    torch.testing.assert_close(probabilities.sum(1), torch.ones(3))
    # Odds of e³, apart from the constant that keeps every negative possible.
    torch.testing.assert_close(probabilities[0, 1] / probabilities[0, 2], torch.tensor(3.0).exp(), rtol=0.01, atol=0)
    torch.testing.assert_close(probabilities[2], torch.tensor([0.5, 0.5, 0.0]))


def test_contrastive_loss_is_lowest_for_matching_pairs():
    vectors = nn.functional.normalize(torch.eye(4) + 0.01, dim=-1)
    images = torch.stack([-vectors, vectors], dim=1)  # one query of two matches
    matching = contrastive_loss(image_text_similarity(images, vectors) / 0.1)
    assert matching < 0.01 < contrastive_loss(image_text_similarity(images, vectors.roll(1, 0)) / 0.1)
    assert contrastive_loss(-image_text_similarity(images, vectors) / 0.1) > matching


def test_padding_and_the_last_position_have_no_loss():
    _, tokens, segments = pairs()
    logits = torch.randn(4, 6, VOCAB_SIZE)
    loss = language_modeling_loss(logits, tokens, segments)
    assert torch.equal(loss, language_modeling_loss(logits, torch.where(segments < 0, 0, tokens), segments))
    logits[:, -1] += 5  # no token follows the last one
    assert torch.equal(loss, language_modeling_loss(logits, tokens, segments))
    perfect = nn.functional.one_hot(tokens.roll(-1, 1), VOCAB_SIZE).float() * 50
    assert language_modeling_loss(perfect, tokens, segments) < 1e-4
