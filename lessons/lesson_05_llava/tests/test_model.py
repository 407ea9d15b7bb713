"""LLaVA's mechanism: positions of image embeddings, attention to them, the loss mask, and weights that stay frozen."""

import pytest
import torch
from torch import nn

from lessons.lesson_00_foundations.decoder.model import LanguageModel
from lessons.lesson_01_vit.model import VisionTransformer, VisionTransformerConfig
from lessons.lesson_02_clip.model import clip_vision_config
from lessons.lesson_05_llava.model import (
    Llava,
    Projector,
    both_stages,
    encode_conversation,
    first_stage,
    instruction_turns,
    loss_mask,
    second_stage,
)
from lessons.lesson_05_llava.model.anyres import cut_into_tiles, fit_inside, select_resolution, tile_grid, token_count
from shared.finetuning import AdapterConfig, add_adapters, collate, sft_loss
from shared.pretrained.digest import weights_digest
from shared.testing import redraw_weights
from shared.tokenizers import ChatTemplate, Tokenizer, Turn
from shared.tokenizers.special_tokens import IMAGE_TOKEN as IMAGE
from shared.training import Batches, TrainingConfig, train
from shared.transformer import DecoderConfig, Sampling

VOCABULARY, IMAGE_TOKEN, PATCHES = 31, 29, 9


def clip_encoder():
    config = clip_vision_config(image_size=12, patch_size=4, width=20, depth=3, heads=5, mlp_dim=28)
    return redraw_weights(VisionTransformer(config))


def llava(vision_encoder=None, **choices):
    language = LanguageModel(DecoderConfig(VOCABULARY, 16, 2, 4, 2, 20))
    width = 20 * len(choices.get("feature_layers", (-2,)))
    model = Llava(
        vision_encoder or clip_encoder(), Projector(width, 16), language, image_token_id=IMAGE_TOKEN, **choices
    )
    return redraw_weights(model)


# ── Features ──────────────────────────────────────────────────────────────────────────────────────────────────────────


def test_the_last_block_has_no_part_in_the_features():
    model, pixels = llava(), torch.randn(2, 3, 12, 12)
    before = model.image_features(pixels)
    assert before.shape == (2, PATCHES, 20)
    redraw_weights(model.vision_encoder.blocks[-1])
    redraw_weights(model.vision_encoder.norm)
    assert torch.equal(model.image_features(pixels), before)
    redraw_weights(model.vision_encoder.blocks[-2])
    assert not torch.allclose(model.image_features(pixels), before, atol=1e-2)


def test_the_class_token_is_dropped_or_kept():
    model, pixels = llava(keep_class_token=True), torch.randn(1, 3, 12, 12)
    features = model.image_features(pixels)
    assert features.shape == (1, 1 + PATCHES, 20)
    model.keep_class_token = False
    assert torch.equal(model.image_features(pixels), features[:, 1:])


@pytest.mark.parametrize("positions", ["learned", "rotary"])
def test_a_plain_vit_is_a_vision_encoder_too(positions):
    config = VisionTransformerConfig(
        image_size=12, patch_size=4, width=20, depth=3, heads=5, mlp_dim=28, registers=2, positions=positions
    )
    vision_encoder = redraw_weights(VisionTransformer(config))
    model, pixels = llava(vision_encoder), torch.randn(2, 3, 12, 12)
    features = model.image_features(pixels)
    assert features.shape == (2, PATCHES, 20)
    # One more block and the last norm make of them what the ViT itself gives.
    model.keep_class_token = True
    _, angles = vision_encoder.embed(pixels)
    finished = vision_encoder.norm(vision_encoder.blocks[-1](model.image_features(pixels), angles=angles))
    torch.testing.assert_close(finished, vision_encoder.features(pixels), atol=1e-5, rtol=0)


# ── Images in the places of words ─────────────────────────────────────────────────────────────────────────────────────


def rows():
    return torch.tensor(
        [[3, *[IMAGE_TOKEN] * PATCHES, 4, 5, 6], [*[IMAGE_TOKEN] * PATCHES, 7, 8, 9, 10], [1, 2, 3] * 4 + [1]]
    )


def test_each_row_reads_its_own_image():
    model, features = llava(), torch.randn(2, PATCHES, 20)
    logits = model.logits(rows(), features)
    swapped = model.logits(rows(), features.flip(0))
    assert not torch.allclose(logits[:2], swapped[:2], atol=1e-2)
    torch.testing.assert_close(logits[2], swapped[2])
    assert torch.equal(logits[2:], model.logits(rows()[2:]))


def test_the_order_of_patches_and_of_images_is_that_of_reading():
    model, features = llava(), torch.randn(2, PATCHES, 20)
    both = torch.tensor([[3, *[IMAGE_TOKEN] * PATCHES, 4, *[IMAGE_TOKEN] * PATCHES, 5]])
    read = model.input_embeddings(both, features)[0]
    expected = model.projector(features)
    torch.testing.assert_close(read[1 : 1 + PATCHES], expected[0])
    torch.testing.assert_close(read[2 + PATCHES : -1], expected[1])
    torch.testing.assert_close(read[[0, 1 + PATCHES, -1]], model.language_model.embedding(torch.tensor([3, 4, 5])))


def test_words_before_an_image_know_nothing_of_it():
    model, features = llava(), torch.randn(2, PATCHES, 20)
    tokens = torch.tensor([[3, 4, *[IMAGE_TOKEN] * PATCHES, 5, 6], [3, 4, *[IMAGE_TOKEN] * PATCHES, 5, 6]])
    one, other = model.logits(tokens, features)
    torch.testing.assert_close(one[:2], other[:2])
    assert (one[-2:] - other[-2:]).abs().max() > 1e-2


@pytest.mark.parametrize(("images", "message"), [(1, "18 image tokens, but the images take 9"), (3, "take 27")])
def test_more_or_fewer_images_than_places_are_an_error(images, message):
    with pytest.raises(ValueError, match=message):
        llava().logits(rows(), torch.randn(images, PATCHES, 20))
    with pytest.raises(ValueError, match="expand each <image>"):
        llava().logits(rows())


def test_padding_changes_nothing():
    model, features = llava(), torch.randn(1, PATCHES, 20)
    tokens = rows()[:1]
    padded = torch.cat([tokens, torch.full((1, 4), 2)], dim=1)
    segments = torch.tensor([[0] * 13 + [-1] * 4])
    logits = model.logits(padded, features, segments)[:, :13]
    torch.testing.assert_close(logits, model.logits(tokens, features), atol=1e-5, rtol=0)


def test_an_image_token_outside_the_vocabulary_is_never_looked_up():
    model = llava()
    model.image_token_id = VOCABULARY + 3
    tokens = torch.where(rows()[:1] == IMAGE_TOKEN, VOCABULARY + 3, rows()[:1])
    assert model.logits(tokens, torch.randn(1, PATCHES, 20)).isfinite().all()


def test_answers_are_those_of_reading_everything_again():
    model, features = llava(), torch.randn(2, PATCHES, 20)
    # Outside the vocabulary, so that this random model never says it.
    model.image_token_id = VOCABULARY
    row = torch.where(rows()[0] == IMAGE_TOKEN, VOCABULARY, rows()[0])
    prompts = [row[:11], torch.tensor([5, 6, 7])]
    replies = model.answer(prompts, [features[:1], None], Sampling(5))
    for prompt, image_features, new in zip(prompts, [features[:1], None], replies, strict=True):
        text = prompt
        for token in new:
            assert model.logits(text[None], image_features)[0, -1].argmax() == token
            text = torch.cat([text, token[None]])


def test_any_module_may_project():
    """One vector an image: the mean of its patches, through a matrix."""

    class Pooled(nn.Module):
        def __init__(self):
            super().__init__()
            self.matrix = nn.Linear(20, 16)

        def forward(self, features):
            return self.matrix(features.mean(dim=1, keepdim=True))

    model = llava()
    model.projector = redraw_weights(Pooled())
    tokens = torch.tensor([[3, IMAGE_TOKEN, 4]])
    assert model.logits(tokens, torch.randn(1, PATCHES, 20)).shape == (1, 3, VOCABULARY)


# ── Sequences ─────────────────────────────────────────────────────────────────────────────────────────────────────────


@pytest.fixture(scope="module")
def template():
    tokenizer = Tokenizer.train(
        ["user assistant what color is the star? red\n"] * 4,
        300,
        special_tokens=["<|begin|>", "<|turn|>", "<|end|>", IMAGE],
    )
    return ChatTemplate(tokenizer)


def test_an_image_stands_as_often_as_it_has_tokens(template):
    row = encode_conversation(template, "what color is the star?", "red", image_token_counts=[5])
    image = template.tokenizer.special_tokens[IMAGE]
    assert row.token_ids.count(image) == 5
    assert template.tokenizer.decode([n for n in row.token_ids if n != image]).startswith(
        "<|begin|><|turn|>user\n\nwhat"
    )
    prompt_row = encode_conversation(template, "what color is the star?", image_token_counts=[5])
    assert row.token_ids[: len(prompt_row.token_ids)] == prompt_row.token_ids and not any(prompt_row.loss_mask)


def test_the_loss_covers_the_answer_and_its_end(template):
    row = encode_conversation(template, "what color is the star?", "red", image_token_counts=[5])
    tokens, answers, segments = collate(
        [row, encode_conversation(template, "what?", "red red red", image_token_counts=[2])]
    )
    image = template.tokenizer.special_tokens[IMAGE]
    mask = loss_mask(tokens, answers, segments, image_token_id=image)
    texts = [template.tokenizer.decode(row[chosen].tolist()) for row, chosen in zip(tokens, mask, strict=True)]
    assert texts == ["red<|end|>", "red red red<|end|>"]
    everything = loss_mask(tokens, answers, segments, image_token_id=image, prompts=True)
    assert torch.equal(everything, (tokens != image) & (segments == 0))


def test_a_question_can_be_about_several_images_or_none():
    assert instruction_turns("why?", images=2) == [Turn("user", f"{IMAGE}\n{IMAGE}\nwhy?")]
    assert instruction_turns("why?", "so.", images=0) == [Turn("user", "why?"), Turn("assistant", "so.")]


# ── Stages ────────────────────────────────────────────────────────────────────────────────────────────────────────────


def trained(model, stages, steps):
    tokens, features = rows()[:2], torch.randn(2, PATCHES, 20)
    mask = torch.zeros_like(tokens, dtype=torch.bool)
    mask[:, -2:] = True
    batches = Batches(features, tokens, mask, batch_size=2, seed=0)
    train(
        model,
        batches,
        lambda model, batch: sft_loss(model.logits(batch[1], batch[0]), batch[1], batch[2]),
        TrainingConfig(steps=steps, learning_rate=1e-2, weight_decay=0.0),
        stages=stages,
    )


def changed(model, before):
    return {name for name, part in model.named_children() if weights_digest(part) != before[name]}


def digests(model):
    return {name: weights_digest(part) for name, part in model.named_children()}


def test_in_the_first_stage_the_projector_alone_moves():
    model = llava()
    before = digests(model)
    trained(model, (first_stage(3),), 3)
    assert changed(model, before) == {"projector"}


def test_in_the_second_stage_the_language_model_is_trained_too_and_the_encoder_is_not():
    model = llava()
    before = digests(model)
    trained(model, both_stages(1, 2, model), 3)
    assert changed(model, before) == {"projector", "language_model"}


def test_with_adapters_only_they_and_the_projector_move():
    model = llava()
    names = add_adapters(model, AdapterConfig(("language_model.blocks.*",), rank=2))
    bases = {name: model.get_submodule(name).base.weight.clone() for name in names}
    words, projector = model.language_model.embedding.weight.clone(), weights_digest(model.projector)
    ups = {name: model.get_submodule(name).lora_up.weight.clone() for name in names}
    trained(model, (second_stage(3, model),), 3)
    assert all(torch.equal(model.get_submodule(name).base.weight, bases[name]) for name in names)
    assert torch.equal(model.language_model.embedding.weight, words) and weights_digest(model.projector) != projector
    assert all(not torch.equal(model.get_submodule(name).lora_up.weight, ups[name]) for name in names)


def test_a_stage_of_no_steps_is_left_out():
    model = llava()
    assert both_stages(0, 5, model) == (second_stage(5, model),)
    assert both_stages(5, 0, model) == (first_stage(5),)


# ── AnyRes ────────────────────────────────────────────────────────────────────────────────────────────────────────────


def test_an_image_without_area_or_sizes_without_tiles_are_errors():
    with pytest.raises(ValueError, match="expected at least one pixel"):
        select_resolution((0, 5), [(4, 4)])
    with pytest.raises(ValueError, match="one size"):
        select_resolution((5, 5), [])
    with pytest.raises(ValueError, match="6 × 8 is not divisible into tiles of 4"):
        tile_grid((6, 8), [(6, 8)], 4)


@pytest.mark.parametrize(
    ("image", "size", "inside"),
    [((10, 20), (8, 8), (4, 8)), ((20, 10), (8, 8), (8, 4)), ((3, 4), (12, 12), (9, 12)), ((7, 7), (8, 4), (4, 4))],
)
def test_the_image_keeps_its_shape(image, size, inside):
    assert fit_inside(image, size) == inside


def test_tiles_lie_in_reading_order_with_black_around_and_the_whole_before():
    image = torch.ones(3, 8, 16)
    image[:, :, 8:] = 2.0
    tiles = cut_into_tiles(image, [(8, 16), (16, 16)], 8)
    assert tiles.shape == (3, 3, 8, 8)
    torch.testing.assert_close(tiles[1], torch.ones(3, 8, 8))
    torch.testing.assert_close(tiles[2], torch.full((3, 8, 8), 2.0))
    assert tiles[0].min() > 0.9 and tiles[0].max() < 2.1  # the whole, squeezed
    padded = cut_into_tiles(torch.ones(3, 8, 16), [(16, 16)], 8)
    assert padded.shape == (5, 3, 8, 8)
    assert (padded[1, :, :4] == 0).all() and (padded[1, :, 4:] == 1).all() and (padded[3, :, 4:] == 0).all()


def test_a_wide_image_takes_fewer_tokens_than_a_square_one_on_the_same_grid():
    square, wide = (token_count(image, [(24, 24)], 12, 3) for image in ((20, 20), (10, 40)))
    assert (square, wide) == (9 + 6 * 7, 9 + 2 * 7)
