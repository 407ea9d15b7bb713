"""Flamingo's mechanism: gates that begin closed, one image a word, as many latents whatever the image, a frozen model between."""

import hashlib

import pytest
import torch

from lessons.lesson_00_foundations.decoder.model import LanguageModel
from lessons.lesson_01_vit.model import VisionTransformer
from lessons.lesson_02_clip.model import clip_vision_config
from lessons.lesson_04_flamingo.model import (
    Flamingo,
    FlamingoConfig,
    PerceiverResampler,
    ResamplerConfig,
    few_shot,
    gated,
    interleave,
    latest_image,
    media_mask,
    sees,
    text_loss,
    training_stage,
    words_of,
)
from shared.errors import CourseError
from shared.tokenizers import Tokenizer
from shared.training import TrainingConfig, train
from shared.transformer import DecoderConfig, Sampling

VOCABULARY, IMAGE = 31, 30
RESAMPLER = ResamplerConfig(width=20, latents=3, depth=2, heads=2, head_dim=7)


def flamingo(gates="vector", *, every=2, redraw=True):
    language = LanguageModel(DecoderConfig(VOCABULARY, 24, 4, 4, 2, 28))
    vision = VisionTransformer(clip_vision_config(image_size=12, patch_size=3, width=20, depth=2, heads=5, mlp_dim=28))
    model = Flamingo(FlamingoConfig(RESAMPLER, every, gates), vision, language).eval()
    if redraw and gates != "none":
        for inserted in model.inserted:
            for gate in (inserted.attention_gate, inserted.mlp_gate):
                torch.nn.init.normal_(gate.data, std=1.0)
    return model


def rows(*documents):
    """Rows of tokens, 9 long, with images at the given places."""
    tokens = torch.randint(0, IMAGE, (len(documents), 9))
    for row, places in enumerate(documents):
        tokens[row, list(places)] = IMAGE
    return tokens, latest_image(tokens, torch.zeros_like(tokens), IMAGE)


def digest(module):
    whole = hashlib.sha256()
    for name, tensor in sorted(module.state_dict().items()):
        whole.update(name.encode() + tensor.numpy().tobytes())
    return whole.hexdigest()


# ── Gates ─────────────────────────────────────────────────────────────────────────────────────────────────────────────


@torch.no_grad()
@pytest.mark.parametrize("gates", ["scalar", "vector"])
@pytest.mark.parametrize("every", [1, 2, 4])
def test_with_gates_at_zero_nothing_has_changed_to_the_bit(gates, every):
    model = flamingo(gates, every=every, redraw=False)
    tokens, looks = rows((0, 4), (2,))
    media = model.media(torch.randn(2, 2, 16, 20))
    segments = torch.where(torch.arange(9) < torch.tensor([[9], [6]]), 0, -1)
    assert torch.equal(model(tokens, media, looks), model.language(tokens))
    assert torch.equal(model(tokens, media, looks, segments), model.language(tokens, segments=segments))


@torch.no_grad()
def test_each_gate_opens_its_own_branch():
    tokens, looks = rows((0, 4), (2,))
    features = torch.randn(2, 2, 16, 20)
    for name in ("attention_gate", "mlp_gate"):
        model = flamingo(redraw=False)
        before = model(tokens, model.media(features), looks)
        getattr(model.inserted[1], name).fill_(0.5)
        after = model(tokens, model.media(features), looks)
        assert (before - after).abs().max() > 1e-3, name
        # Only through the attention does an image enter.
        other = model(tokens, model.media(torch.randn(2, 2, 16, 20)), looks)
        assert torch.equal(after, other) == (name == "mlp_gate")


@torch.no_grad()
def test_without_gates_the_model_is_another_from_the_start():
    model = flamingo("none")
    tokens, looks = rows((0, 4), (2,))
    assert (model(tokens, model.media(torch.randn(2, 2, 16, 20)), looks) - model.language(tokens)).abs().max() > 1e-2
    assert not any("gate" in name and "mlp.gate" not in name for name, _ in model.inserted.named_parameters())
    with pytest.raises(CourseError, match="no gates"):
        model.save_pretrained("nowhere")


def test_the_first_step_moves_the_gates_and_nothing_behind_them():
    """At zero a gate lets no gradient into its branch, but gets one itself: it opens first."""
    model = flamingo(redraw=False)
    tokens, looks = rows((0, 4), (2,))
    text_loss(model(tokens, model.media(torch.randn(2, 2, 16, 20)), looks), tokens, tokens != IMAGE).backward()
    for inserted in model.inserted:
        assert inserted.attention_gate.grad.abs().max() > 0 and inserted.mlp_gate.grad.abs().max() > 0
        assert (inserted.attention.value.weight.grad == 0).all()
    assert all((parameter.grad == 0).all() for parameter in model.resampler.parameters())


# ── Which image a word sees ───────────────────────────────────────────────────────────────────────────────────────────


@torch.no_grad()
def test_a_changed_image_changes_the_words_that_follow_it_and_no_earlier_ones():
    model = flamingo()
    tokens, looks = rows((1, 4, 6))
    features = torch.randn(1, 3, 16, 20)
    before = model(tokens, model.media(features), looks)
    for image, place in enumerate((1, 4, 6)):
        other = features.clone()
        other[:, image] = torch.randn(16, 20)  # (a shift alone would be normed away)
        moved = (model(tokens, model.media(other), looks) - before).abs().amax(dim=(0, 2))
        # What came before is as it was; what comes later may know of it, through the words between.
        assert (moved[:place] == 0).all() and (moved[place:] > 1e-5).all()


@torch.no_grad()
def test_a_word_looks_at_its_latest_image_alone():
    """One layer deep, where nothing could have come round through other words: row by row the mask is what is seen."""
    model = flamingo(every=4)
    tokens, looks = rows((1, 4, 6))
    assert looks.tolist() == [[-1, 0, 0, 0, 1, 1, 2, 2, 2]]
    x, media = model.language.embedding(tokens), model.media(torch.randn(1, 3, 16, 20))

    def looked(media):
        return model.inserted[0](x, media.flatten(1, 2), media_mask(looks, 3, 3))

    before = looked(media)
    for image in range(3):
        other = media.clone()
        other[:, image] = torch.randn(3, 20)
        moved = (looked(other) - before).abs().amax(dim=(0, 2)) > 0
        assert moved.tolist() == [look == image for look in looks[0].tolist()]
    # A word before any image gathers nothing, but it still thinks.
    inserted = model.inserted[0]
    thought = gated(x, inserted.mlp(inserted.mlp_norm(x)), inserted.mlp_gate)
    torch.testing.assert_close(before[:, 0], thought[:, 0])


def test_queries_and_keys_are_not_exchangeable():
    model = flamingo()
    tokens, looks = rows((0, 4), (2,))
    features = torch.randn(2, 2, 16, 20)
    with torch.no_grad():
        before = model(tokens, model.media(features), looks)
        for block in model.resampler.blocks:
            block.attention.query, block.attention.key = block.attention.key, block.attention.query
        assert (model(tokens, model.media(features), looks) - before).abs().max() > 1e-3


def test_documents_in_one_row_do_not_see_each_others_images():
    tokens = torch.tensor([[1, IMAGE, 2, 1, 3, IMAGE, 4, 0, 0]])
    segments = torch.tensor([[0, 0, 0, 1, 1, 1, 1, -1, -1]])
    assert latest_image(tokens, segments, IMAGE).tolist() == [[-1, 0, 0, -1, -1, 1, 1, -1, -1]]
    picture = sees(latest_image(tokens, segments, IMAGE), 2, 2)[0].int().tolist()
    assert picture == [
        [0] * 4,
        [1, 1, 0, 0],
        [1, 1, 0, 0],
        [0] * 4,
        [0] * 4,
        [0, 0, 1, 1],
        [0, 0, 1, 1],
        [0] * 4,
        [0] * 4,
    ]


@torch.no_grad()
def test_packed_documents_are_read_as_if_alone():
    model = flamingo()
    first, second = torch.tensor([[1, IMAGE, 2, 7]]), torch.tensor([[3, IMAGE, 4, IMAGE, 6]])
    features = torch.randn(1, 3, 16, 20)
    packed = torch.cat([first, second], dim=1)
    segments = torch.tensor([[0] * 4 + [1] * 5])
    together = model(packed, model.media(features), latest_image(packed, segments, IMAGE), segments)
    for tokens, at, images in ((first, slice(0, 4), slice(0, 1)), (second, slice(4, 9), slice(1, 3))):
        looks = latest_image(tokens, torch.zeros_like(tokens), IMAGE)
        alone = model(tokens, model.media(features[:, images]), looks)
        torch.testing.assert_close(together[:, at], alone, atol=1e-5, rtol=0)


# ── The resampler ─────────────────────────────────────────────────────────────────────────────────────────────────────


@torch.no_grad()
def test_as_many_latents_however_large_the_image():
    model = flamingo()
    for size in (6, 12, 24):
        assert model.look(torch.randn(2, 2, 3, size, size)).shape == (2, 2, 3, 20)


@torch.no_grad()
def test_latents_see_the_patches_and_each_other():
    resampler = PerceiverResampler(RESAMPLER)
    features = torch.randn(2, 16, 20)
    before = resampler(features)
    maps = resampler.attention_maps(features)
    assert [tuple(seen.shape) for seen in maps] == [(2, 2, 3, 16 + 3)] * 2
    torch.testing.assert_close(maps[0].sum(-1), torch.ones(2, 2, 3, dtype=maps[0].dtype))
    # Patches have no order of their own: where they were is in their vectors, if anywhere.
    torch.testing.assert_close(resampler(features[:, torch.randperm(16)]), before, atol=1e-5, rtol=0)
    resampler.latents.data[0] = torch.randn(20)
    moved = (resampler(features) - before).abs().amax(dim=(0, 2))
    assert (moved > 1e-4).all()


# ── Documents ─────────────────────────────────────────────────────────────────────────────────────────────────────────


@pytest.fixture(scope="module")
def tokenizer():
    return Tokenizer.train(["red dax. blue fep. a b c d"] * 3, 270, special_tokens=("<|begin|>", "<image>"))


def test_documents_become_rows(tokenizer):
    documents = [["red", 7, " dax.", 3, " fep."], [5], ["a b"]]
    batch = interleave(documents, tokenizer, begin="<|begin|>", image="<image>")
    begin, image = tokenizer.special_tokens["<|begin|>"], tokenizer.special_tokens["<image>"]
    red, dax, fep = (tokenizer.encode(text) for text in ("red", " dax.", " fep."))
    first = [begin, *red, image, *dax, image, *fep]
    assert batch.tokens[0].tolist() == first
    assert batch.looks[0].tolist() == [-1] * (1 + len(red)) + [0] * (1 + len(dax)) + [1] * (1 + len(fep))
    assert batch.tokens[1, :2].tolist() == [begin, image] and (batch.segments[1, 2:] == -1).all()
    assert batch.images.tolist() == [[7, 3], [5, -1], [-1, -1]]
    assert (batch.looks[2] == -1).all()


def test_documents_share_rows_as_long_as_they_fit(tokenizer):
    documents = [["a", 1], [2, "b"], ["c", 3, "d", 4]]
    batch = interleave(documents, tokenizer, begin="<|begin|>", image="<image>", length=7)
    assert batch.segments.tolist() == [[0, 0, 0, 1, 1, 1, -1], [0, 0, 0, 0, 0, -1, -1]]
    assert batch.images.tolist() == [[1, 2], [3, 4]]
    assert batch.looks.tolist() == [[-1, -1, 0, -1, 1, 1, -1], [-1, -1, 0, 0, 1, -1, -1]]
    with pytest.raises(ValueError, match="a document of 5 tokens does not fit into rows of 4"):
        interleave(documents, tokenizer, begin="<|begin|>", image="<image>", length=4)


def test_a_prompt_names_its_task_by_examples(tokenizer):
    assert few_shot([(4, " dax."), (9, " fep.")], 2) == [4, " dax.", 9, " fep.", 2]
    assert few_shot([], 2, "what is it? ") == ["what is it? ", 2]


def test_what_is_asked():
    tokens = torch.tensor([[1, IMAGE, 5, 1, 6, IMAGE, 0]])
    segments = torch.tensor([[0, 0, 0, 1, 1, 1, -1]])
    assert words_of(tokens, segments, IMAGE).tolist() == [[False, False, True, False, True, False, False]]


# ── Writing and learning ──────────────────────────────────────────────────────────────────────────────────────────────


@torch.no_grad()
def test_it_writes_what_it_would_read_looking_at_the_last_image():
    model = flamingo()
    prompts = [torch.tensor([1, IMAGE, 5, 9, IMAGE]), torch.tensor([2, IMAGE]), torch.tensor([7, 8, 3])]
    features = torch.randn(3, 2, 16, 20)
    media = model.media(features)
    looks = [latest_image(row[None], torch.zeros_like(row)[None], IMAGE)[0] for row in prompts]
    written = model.answer(prompts, media, looks, Sampling(5))
    for row, (prompt, seen) in enumerate(zip(prompts, looks, strict=True)):
        tokens, looked = prompt, seen
        for _ in range(5):
            logits = model(tokens[None], media[row : row + 1], looked[None])
            tokens = torch.cat([tokens, logits[0, -1:].argmax(-1)])
            looked = torch.cat([looked, looked[-1:]])
        assert torch.equal(written[row], tokens[len(prompt) :])
    with pytest.raises(ValueError, match="with a cache"):
        model.answer(prompts, media, looks, Sampling(5), use_cache=False)


def test_training_moves_what_was_inserted_and_nothing_else():
    torch.manual_seed(3)
    model = flamingo(redraw=False)
    tokens = torch.tensor([[1, IMAGE, 5 + k, 9 + k, IMAGE, 6 + k, 2] for k in range(4)])
    looks = latest_image(tokens, torch.zeros_like(tokens), IMAGE)
    features = torch.randn(4, 2, 16, 20)
    asked = words_of(tokens, torch.zeros_like(tokens), IMAGE)
    frozen = digest(model.vision), digest(model.language)
    learns = {name: p.clone() for name, p in model.named_parameters() if name.startswith(("resampler", "inserted"))}

    def loss(model, batch):
        features, tokens, looks, asked = batch
        return text_loss(model(tokens, model.media(features), looks), tokens, asked)

    before = loss(model, (features, tokens, looks, asked)).item()
    config = TrainingConfig(steps=40, learning_rate=1e-2, warmup_steps=4, log_every=40)
    train(model, lambda step: (features, tokens, looks, asked), loss, config, stages=training_stage(40))
    assert (digest(model.vision), digest(model.language)) == frozen
    assert [name for name, p in model.named_parameters() if name in learns and torch.equal(p, learns[name])] == []
    after = loss(model, (features, tokens, looks, asked)).item()
    swapped = loss(model, (features.flip(0), tokens, looks, asked)).item()
    assert after < before - 0.5 and swapped > after + 0.2


def test_it_refuses_what_does_not_fit():
    with pytest.raises(ValueError, match="before every 3 blocks does not fit 4 blocks"):
        flamingo(every=3)
    with pytest.raises(ValueError, match="every is 0"):
        FlamingoConfig(RESAMPLER, every=0)
