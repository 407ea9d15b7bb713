"""The Q-Former's mechanism: who sees whom, who looks at the image, what learns and what does not move by one bit."""

import hashlib

import pytest
import torch
from torch import nn

from lessons.lesson_00_foundations.decoder.model import LanguageModel
from lessons.lesson_01_vit.model import VisionTransformer, VisionTransformerConfig
from lessons.lesson_03_blip2.model import (
    Blip2,
    FirstStage,
    LinearBridge,
    MeanPoolingBridge,
    QFormer,
    QFormerBridge,
    QFormerConfig,
    Retriever,
    RetrieverConfig,
    first_stage,
    second_stage,
    visible,
)
from lessons.lesson_03_blip2.model.losses import contrastive_loss, negative_chances, similarities, writing_loss
from shared.attention import FULL_ATTENTION, Mask
from shared.training import TrainingConfig, train
from shared.transformer import DecoderConfig, Sampling

SIZES = {"width": 24, "depth": 4, "heads": 3, "mlp_dim": 28, "context_width": 20}
TEXT = QFormerConfig(**SIZES, reads_text=True)
IMAGE = QFormerConfig(**SIZES)
VOCABULARY = 31


def eye():
    return VisionTransformer(
        VisionTransformerConfig(image_size=12, patch_size=3, width=20, depth=1, heads=5, mlp_dim=28)
    )


def retriever(**changes):
    sizes = {"queries": 5, "vocab_size": VOCABULARY, "max_text": 9, "shared_width": 11} | changes
    return Retriever(RetrieverConfig(TEXT, **sizes), eye()).eval()


def language():
    return LanguageModel(DecoderConfig(VOCABULARY, 16, 2, 4, 2, 20)).eval()


def pairs(count=4):
    features = torch.randn(count, 7, 20)
    tokens = torch.randint(0, VOCABULARY, (count, 6))
    segments = torch.where(torch.arange(6) < torch.tensor([6, 4, 2, 5])[:count, None], 0, -1)
    return features, tokens, segments


def digest(module):
    whole = hashlib.sha256()
    for name, tensor in sorted(module.state_dict().items()):
        whole.update(name.encode() + tensor.numpy().tobytes())
    return whole.hexdigest()


# ── Masks ─────────────────────────────────────────────────────────────────────────────────────────────────────────────


def test_the_three_masks_are_those_of_figure_2():
    segments = torch.tensor([[0, 0, 0, -1]])
    pictures = {
        task: visible(task, 2, segments)[0].int().tolist() for task in ("contrastive", "matching", "generation")
    }
    assert pictures["contrastive"] == [
        [1, 1, 0, 0, 0, 0],
        [1, 1, 0, 0, 0, 0],
        [0, 0, 1, 1, 1, 0],
        [0, 0, 1, 1, 1, 0],
        [0, 0, 1, 1, 1, 0],
        [0, 0, 0, 0, 0, 0],
    ]
    assert pictures["matching"] == [[1, 1, 1, 1, 1, 0]] * 5 + [[0] * 6]
    assert pictures["generation"] == [
        [1, 1, 0, 0, 0, 0],
        [1, 1, 0, 0, 0, 0],
        [1, 1, 1, 0, 0, 0],
        [1, 1, 1, 1, 0, 0],
        [1, 1, 1, 1, 1, 0],
        [0, 0, 0, 0, 0, 0],
    ]


def influence(model, task, queries, features, tokens, segments):
    """How much each output of one pass moves when one word, or the image, is changed: (queries, words) for both changes."""
    before = model.together(task, features, tokens, segments)
    other = tokens.clone()
    other[:, 1] = (other[:, 1] + 1) % VOCABULARY
    after_word = model.together(task, features, other, segments)
    after_image = model.together(task, features + 1, tokens, segments)
    return [
        [(a - b).abs().amax(dim=(0, 2)) for a, b in zip(before, after, strict=True)]
        for after in (after_word, after_image)
    ]


@torch.no_grad()
def test_what_reaches_whom_through_all_blocks():
    """The mask is not only drawn: a changed word or image reaches exactly those who may know of it."""
    model = retriever()
    features, tokens, _ = pairs()
    arguments = (model, features, tokens, torch.zeros_like(tokens))
    reached = {
        task: influence(arguments[0], task, 5, *arguments[1:]) for task in ("contrastive", "matching", "generation")
    }
    (query_by_word, word_by_word), (query_by_image, word_by_image) = reached["contrastive"]
    assert (query_by_word == 0).all() and (word_by_word > 1e-4).all()
    assert (query_by_image > 1e-4).all() and (word_by_image == 0).all()
    (query_by_word, word_by_word), (query_by_image, word_by_image) = reached["matching"]
    assert (query_by_word > 1e-4).all() and (word_by_image > 1e-4).all()
    (query_by_word, word_by_word), (query_by_image, word_by_image) = reached["generation"]
    assert (query_by_word == 0).all()
    assert word_by_word[0] == 0 and (word_by_word[1:] > 1e-4).all()  # no word knows of a later one
    assert (word_by_image > 1e-4).all()


@torch.no_grad()
@pytest.mark.parametrize("task", ["contrastive", "matching", "generation"])
def test_padding_changes_nothing(task):
    model = retriever()
    features, tokens, segments = pairs()
    alone = model.together(task, features[2:3], tokens[2:3, :2], segments[2:3, :2])
    padded = model.together(task, features, tokens, segments)
    torch.testing.assert_close(padded[0][2], alone[0][0], atol=1e-6, rtol=0)
    torch.testing.assert_close(padded[1][2, :2], alone[1][0], atol=1e-6, rtol=0)


@torch.no_grad()
def test_contrast_in_one_pass_is_contrast_in_two():
    """What training computes in one masked pass is what `image_vectors` and `text_vectors` compute apart."""
    model = retriever()
    features, tokens, segments = pairs()
    queries, words = model.together("contrastive", features, tokens, segments)
    torch.testing.assert_close(
        nn.functional.normalize(model.image_projection(queries), dim=-1),
        model.image_vectors(features),
        atol=1e-6,
        rtol=0,
    )
    torch.testing.assert_close(
        nn.functional.normalize(model.text_projection(words[:, 0]), dim=-1),
        model.text_vectors(tokens, segments),
        atol=1e-6,
        rtol=0,
    )


# ── The Q-Former ──────────────────────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize(("every", "looking"), [(1, [0, 1, 2, 3]), (2, [0, 2]), (3, [0, 3])])
def test_which_blocks_look_at_the_image(every, looking):
    model = QFormer(QFormerConfig(**SIZES, cross_every=every))
    assert [layer for layer, block in enumerate(model.blocks) if block.cross_attention is not None] == looking
    queries, context = torch.randn(2, 3, 24), torch.randn(2, 7, 20)
    with torch.no_grad():
        x, changed = model.norm(queries), []
        for layer, block in enumerate(model.blocks):
            if not torch.equal(block(x, 3, context, FULL_ATTENTION), block(x, 3, context + 1, FULL_ATTENTION)):
                changed.append(layer)
    assert changed == looking


@torch.no_grad()
def test_words_never_look_at_the_image_themselves():
    model = QFormer(TEXT)
    x, context = torch.randn(2, 8, 24), torch.randn(2, 7, 20)
    apart = torch.tensor([[0] * 5 + [1] * 3])
    mask = Mask(segment_q=apart, segment_k=apart)
    before, after = (model(x, queries=5, context=c, mask=mask) for c in (context, context + 1))
    assert torch.equal(before[:, 5:], after[:, 5:])
    assert (before[:, :5] - after[:, :5]).abs().min(dim=-1).values.max() > 0


def test_queries_and_keys_are_not_exchangeable(monkeypatch):
    """Where the queries' projection takes the keys' place, everything changes: no test here rests on symmetric weights."""
    model = QFormer(IMAGE).eval()
    queries, context = torch.randn(2, 3, 24), torch.randn(2, 7, 20)
    with torch.no_grad():
        before = model(queries, queries=3, context=context)
        for block in model.blocks:
            block.attention.query, block.attention.key = block.attention.key, block.attention.query
        assert (model(queries, queries=3, context=context) - before).abs().max() > 1e-2


def test_it_refuses_what_it_has_no_parts_for():
    model = QFormer(IMAGE)
    with pytest.raises(ValueError, match="3 queries were given and no context"):
        model(torch.randn(1, 3, 24), queries=3)
    with pytest.raises(ValueError, match="2 text tokens were given to a Q-Former that reads none"):
        model(torch.randn(1, 5, 24), queries=3, context=torch.randn(1, 7, 20))
    with pytest.raises(ValueError, match="width 24 does not divide into 5 heads"):
        QFormerConfig(width=24, heads=5)
    with pytest.raises(ValueError, match="reads_text=True"):
        RetrieverConfig(IMAGE)
    with pytest.raises(ValueError, match="no task 'ranking': choose one of contrastive"):
        visible("ranking", 2, torch.zeros(1, 3, dtype=torch.long))
    with pytest.raises(ValueError, match="a text of 10 tokens; this model reads at most 9"):
        retriever().text_vectors(torch.zeros(1, 10, dtype=torch.long), torch.zeros(1, 10, dtype=torch.long))


# ── Losses ────────────────────────────────────────────────────────────────────────────────────────────────────────────


def test_hard_negatives_are_likelier_and_never_the_partner():
    scores = torch.tensor([[9.0, 4.0, 1.0], [0.0, 9.0, 0.0], [-200.0, -200.0, 9.0]])
    chances = negative_chances(scores)
    assert torch.equal(chances.diagonal(), torch.zeros(3))
    torch.testing.assert_close(chances.sum(1), torch.ones(3))
    # Odds of e³, but for what is added so that somebody can always be drawn.
    torch.testing.assert_close(chances[0, 1] / chances[0, 2], torch.tensor(3.0).exp(), rtol=0.01, atol=0)
    torch.testing.assert_close(chances[2], torch.tensor([0.5, 0.5, 0.0]))


def test_the_contrast_is_lowest_where_pairs_agree():
    vectors = nn.functional.normalize(torch.eye(4) + 0.01, dim=-1)
    images = torch.stack([-vectors, vectors], dim=1)  # one query of two fits
    fitting = contrastive_loss(similarities(images, vectors) / 0.1)
    assert fitting < 0.01 < contrastive_loss(similarities(images, vectors.roll(1, 0)) / 0.1)
    assert contrastive_loss(-similarities(images, vectors) / 0.1) > fitting


def test_writing_is_asked_of_words_alone():
    _, tokens, segments = pairs()
    logits = torch.randn(4, 6, VOCABULARY)
    loss = writing_loss(logits, tokens, segments)
    assert torch.equal(loss, writing_loss(logits, torch.where(segments < 0, 0, tokens), segments))
    logits[:, -1] += 5  # nobody comes after the last one
    assert torch.equal(loss, writing_loss(logits, tokens, segments))
    perfect = nn.functional.one_hot(tokens.roll(-1, 1), VOCABULARY).float() * 50
    assert writing_loss(perfect, tokens, segments) < 1e-4


# ── Stages ────────────────────────────────────────────────────────────────────────────────────────────────────────────


def stage_config(steps, learning_rate=3e-3):
    return TrainingConfig(steps=steps, learning_rate=learning_rate, log_every=steps, warmup_steps=5)


def test_the_first_stage_teaches_all_three_and_leaves_the_eye_alone():
    torch.manual_seed(1)
    model = FirstStage(retriever(), writes_first=1)
    features, tokens, _ = pairs()
    # Four images that differ, with four captions: [begin, name, name, end, end, end].
    tokens = torch.tensor([[0, 5 + k, 9 + k, 2, 2, 2] for k in range(4)])
    segments = torch.where(torch.arange(6) < 4, 0, -1).expand(4, 6)
    before, eye_before = {n: p.clone() for n, p in model.named_parameters()}, digest(model.retriever.vision)
    result = train(
        model,
        lambda step: (features, tokens, segments),
        lambda m, batch: m(*batch),
        stage_config(80),
        stages=first_stage(80),
    )
    assert digest(model.retriever.vision) == eye_before
    unmoved = [n for n, p in model.named_parameters() if torch.equal(p, before[n]) and ".vision." not in n]
    # A bias of the keys has no effect, and weight decay leaves a zero at zero.
    assert [name for name in unmoved if not name.endswith("key.bias")] == []
    last = result.history[-1]
    with torch.no_grad():
        scores = similarities(model.retriever.image_vectors(features), model.retriever.text_vectors(tokens, segments))
        written = model.write(features, tokens, segments).argmax(-1)
        own = model.retriever.match_logits(features, tokens, segments).argmax(-1)
        wrong = model.retriever.match_logits(features, tokens.roll(1, 0), segments).argmax(-1)
    assert (scores.argmax(1) == torch.arange(4)).all() and (scores.argmax(0) == torch.arange(4)).all()
    assert torch.equal(written[:, :3], tokens[:, 1:4])
    assert (own == 1).all() and (wrong == 0).all()
    assert last["loss"] < 4.0


BRIDGES = {
    "q-former": lambda: QFormerBridge(IMAGE, 3, 16),
    "linear": lambda: LinearBridge(20, 16),
    "mean": lambda: MeanPoolingBridge(20, 16),
}


@pytest.mark.parametrize("name", BRIDGES)
def test_the_second_stage_moves_the_bridge_and_nothing_else(name):
    torch.manual_seed(2)
    model = Blip2(eye(), BRIDGES[name](), language())
    features = torch.randn(4, 7, 20)
    tokens = torch.tensor([[0, 5 + k, 9 + k, 2] for k in range(4)])
    segments = torch.zeros_like(tokens)
    frozen = digest(model.vision), digest(model.language)
    bridge = digest(model.bridge)
    before = model.loss(features, tokens, segments).item()
    train(
        model,
        lambda step: (features, tokens, segments),
        lambda m, batch: m.loss(*batch),
        stage_config(40, 2e-2),
        stages=second_stage(40),
    )
    assert (digest(model.vision), digest(model.language)) == frozen
    assert digest(model.bridge) != bridge
    assert model.loss(features, tokens, segments).item() < before - 0.2


def test_a_frozen_language_model_still_passes_the_gradient_on():
    """It does not learn, but the bridge learns through it: detach it, and nothing would."""
    model = Blip2(eye(), QFormerBridge(IMAGE, 3, 16), language())
    for part in (model.vision, model.language):
        part.requires_grad_(False)
    features, tokens, segments = pairs()
    model.loss(features, tokens, segments).backward()
    assert all(parameter.grad is None for parameter in [*model.vision.parameters(), *model.language.parameters()])
    assert all(
        parameter.grad.abs().max() > 0
        for name, parameter in model.bridge.named_parameters()
        if not name.endswith("key.bias")
    )


@torch.no_grad()
def test_the_bridge_starts_from_the_first_stage():
    first, bridge = retriever(queries=3), QFormerBridge(IMAGE, 3, 16)
    features = torch.randn(2, 7, 20)
    bridge.start_from(first)
    torch.testing.assert_close(bridge(features), bridge.projection(first.queries_of(features)))
    with pytest.raises(ValueError, match="other sizes: queries differ"):
        bridge.start_from(retriever(queries=4))


@torch.no_grad()
def test_the_image_stands_before_the_text():
    model = Blip2(eye(), QFormerBridge(IMAGE, 3, 16), language())
    images = torch.randn(2, 3, 12, 12)
    tokens = torch.randint(0, VOCABULARY, (2, 5))
    logits = model(images, tokens)
    assert logits.shape == (2, 5, VOCABULARY)
    prefix = model.bridge(model.vision.features(images))
    whole = model.language(embeddings=torch.cat([prefix, model.language.embedding(tokens)], dim=1))
    torch.testing.assert_close(logits, whole[:, 3:])
    assert (model(images.flip(0), tokens) - logits).abs().max() > 1e-4
    # Padding behind a text leaves its logits as they are.
    segments = torch.tensor([[0, 0, 0, -1, -1], [0] * 5])
    torch.testing.assert_close(model(images, tokens, segments)[0, :3], logits[0, :3], atol=1e-5, rtol=0)


@torch.no_grad()
def test_it_answers_prompts_of_any_length_as_it_would_each_alone():
    model = Blip2(eye(), QFormerBridge(IMAGE, 3, 16), language())
    features = torch.randn(3, 7, 20)
    prompts = [torch.randint(0, VOCABULARY, (length,)) for length in (4, 1, 2)]
    together = model.answer(features, prompts, Sampling(6))
    alone = [model.answer(features[k : k + 1], prompts[k : k + 1], Sampling(6))[0] for k in range(3)]
    assert all(torch.equal(a, b) for a, b in zip(together, alone, strict=True))
    # What it writes first is what its logits say comes after the prompt.
    assert together[0][0] == model.logits(features[:1], prompts[0][None])[0, -1].argmax()
