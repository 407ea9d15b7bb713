"""The data and the arms: episodes follow one rule, answer spans are correct, frozen weights do not change."""

import importlib

import pytest
import torch

from data.toybox.episodes import HELD_OUT_CHOOSING
from lessons.lesson_00_foundations.decoder.model import LanguageModel, has_previous_token, pack_documents
from lessons.lesson_00_foundations.decoder.model.evaluation import cross_entropy_bits
from lessons.lesson_01_vit.model import VisionTransformer
from lessons.lesson_02_clip.model import clip_vision_config
from lessons.lesson_04_flamingo.experiment import arms, data, evaluate, train
from lessons.lesson_04_flamingo.experiment.lesson import LESSON
from lessons.lesson_04_flamingo.model import Flamingo, FlamingoConfig, ResamplerConfig
from shared.course.context import RunContext
from shared.tokenizers import Tokenizer
from shared.tokenizers.special_tokens import SPECIAL_TOKENS
from shared.training.loss_sum import add_losses
from shared.transformer import DecoderConfig


@pytest.fixture(scope="module")
def vision_encoder():
    torch.manual_seed(0)
    config = clip_vision_config(image_size=32, patch_size=16, width=16, depth=1, heads=2, mlp_dim=16)
    return VisionTransformer(config).eval().requires_grad_(False)


@pytest.fixture(scope="module")
def tokenizer():
    return Tokenizer.train([" color shape? circle.\n size texture? small.\n"] * 4, 300, special_tokens=SPECIAL_TOKENS)


@pytest.fixture(scope="module")
def encoded(vision_encoder):
    return data.EncodedScenes.sample(vision_encoder, 5, 20, "cpu")


def small_language_model(tokenizer):
    torch.manual_seed(1)
    return LanguageModel(DecoderConfig(tokenizer.vocab_size, 16, 2, 2, 1, 16, tied=True)).eval()


def attributes_of(line):
    return line.question.strip(" ?").split()


@pytest.mark.parametrize("held_out", [False, True])
def test_the_answers_of_an_episode_follow_its_rule_and_its_images(held_out, encoded):
    for number in range(12):
        rule = data.episode_rule(5, number, held_out=held_out)
        assert (rule in HELD_OUT_CHOOSING) == held_out
        for line in data.episode_lines(encoded, 5, number, 4, held_out=held_out):
            requested = attributes_of(line)
            first = next(attribute for attribute in rule if attribute in requested)
            assert len(requested) in (2, 3)
            assert requested == [attribute for attribute in data.ATTRIBUTES if attribute in requested]
            assert line.answer == f" {getattr(encoded.scenes[line.image].objects[0], first)}.\n"


def test_mixed_rules_change_the_example_answers_only(encoded):
    single = [data.episode_lines(encoded, 5, number, 5, held_out=True) for number in range(30)]
    mixed = [data.episode_lines(encoded, 5, number, 5, held_out=True, mixed_rules=True) for number in range(30)]
    assert [lines[-1] for lines in single] == [lines[-1] for lines in mixed]
    examples = [[lines[:-1] for lines in episodes] for episodes in (single, mixed)]
    assert [[line[:2] for line in lines] for lines in examples[0]] == [
        [line[:2] for line in lines] for lines in examples[1]
    ]
    assert examples[0] != examples[1]


def test_answer_spans_and_loss_mask_cover_the_answers(encoded, tokenizer):
    episodes = [data.episode_lines(encoded, 5, number, count) for number, count in enumerate((3, 1, 2))]
    batch = data.tokenize_episodes(episodes, tokenizer)
    for row, lines in enumerate(episodes):
        assert batch.rows.images[row, : len(lines)].tolist() == [line.image for line in lines]
        for number, (line, (first, end)) in enumerate(zip(lines, batch.answer_spans[row], strict=True)):
            assert tokenizer.decode(batch.rows.token_ids[row, first:end].tolist()) == line.answer
            image_place = first - len(tokenizer.encode(line.question)) - 1
            assert batch.rows.token_ids[row, image_place] == tokenizer.special_tokens[data.IMAGE_TOKEN]
            assert (batch.rows.image_index[row, image_place:end] == number).all()
            assert batch.loss_mask[row, first:end].all()
        assert batch.loss_mask[row].sum() == sum(end - first for first, end in batch.answer_spans[row])
    assert encoded.features_of(batch.rows.images).shape == (3, 3, 4, 16)  # four patches
    with pytest.raises(ValueError, match="no lines"):
        data.tokenize_episodes([[]], tokenizer)


def test_one_forward_pass_measures_prompts_of_every_length(vision_encoder, encoded, tokenizer):
    """Line k of a long row has the same prediction as the last line of a row that ends with it."""
    model = train.build_flamingo(vision_encoder, small_language_model(tokenizer), latents=2, depth=1).eval()
    with torch.no_grad():
        for parameter in (*model.cross_attention_layers.parameters(), *model.resampler.parameters()):
            parameter.normal_(std=0.5)
        # Rows of tokens that are no text by themselves get no logit, so that every prediction can be an answer.
        token_ids = range(tokenizer.vocab_size)
        is_word = [tokenizer.encode(tokenizer.decode([token_id])) == [token_id] for token_id in token_ids]
        embedding = model.language_model.embedding.weight[: tokenizer.vocab_size]
        embedding[~torch.tensor(is_word)] = 0
    episodes = [data.episode_lines(encoded, 5, number, 4) for number in range(6)]
    # Make the model's own predictions the answers of every third episode, so that some are correct.
    for number in range(0, 6, 3):
        for place in range(4):
            batch = data.tokenize_episodes([episodes[number][: place + 1]], tokenizer)
            rows, visual_tokens = batch.rows, model.resample(encoded.features_of(batch.rows.images))
            logits = model(rows.token_ids, visual_tokens, rows.image_index, rows.segments)
            first, _ = batch.answer_spans[0][-1]
            answer = tokenizer.decode([int(logits[0, first - 1].argmax())])
            episodes[number][place] = episodes[number][place]._replace(answer=answer)
    together = evaluate.line_accuracies(model, encoded, data.tokenize_episodes(episodes, tokenizer))
    separate = [
        evaluate.line_accuracies(
            model, encoded, data.tokenize_episodes([lines[: place + 1] for lines in episodes], tokenizer)
        )[-1]
        for place in range(4)
    ]
    assert together == separate and max(together) > 0
    batch = data.tokenize_episodes(episodes, tokenizer)
    assert evaluate.line_accuracies(model, encoded, batch, exchanged_images=True) != together


@pytest.mark.parametrize("arm", ["flamingo", "without gates", "trained language model", "scalar gates", "without text"])
def test_an_arm_trains_and_measures(arm, vision_encoder, tokenizer, monkeypatch, tmp_path):
    monkeypatch.setattr(train, "load_vision_encoder", lambda: vision_encoder)
    monkeypatch.setattr(train, "load_language_model", lambda: (small_language_model(tokenizer), tokenizer))
    presets = next(each for each in arms.ARMS if each.name == arm).presets
    settings = arms.SIZES["smoke"] | {
        name: value for name, value in presets["full"].items() if name in ("gates", "train_language_model", "text_rows")
    }
    context = RunContext(seed=0, data="toybox", device="cpu", folder=tmp_path / arm)
    measured = train.train_flamingo(context, **settings, latents=2, depth=1)
    assert measured["frozen_changed"] == float(arm == "trained language model")
    names = ("held_out", "seen", "blind", "text", "best_guess")
    assert all(0 <= measured[f"{name}_{count}"] <= 1 for name in names for count in evaluate.SHOTS)
    assert all(0 <= measured[f"single_{attribute}"] <= 1 for attribute in data.ATTRIBUTES)
    assert measured["best_guess_8"] > measured["best_guess_1"] > measured["best_guess_0"] > 0.3
    starts_unchanged = measured["text_bits_start"] == pytest.approx(measured["text_bits_before"], rel=1e-6)
    assert starts_unchanged == (arm != "without gates") and measured["text_bits_after"] > 0
    assert ("attention_0_curve" in measured) == (arm != "without gates")
    for claim in LESSON.claims:
        if claim.arms == (arm,):
            assert isinstance(claim.measure({arm: measured}), float)


def test_two_small_batches_add_up_to_the_large_batch(vision_encoder, encoded, tokenizer):
    """Gradients of rows with unequal numbers of answer tokens and of text tokens, accumulated as the loop does it."""
    model = train.build_flamingo(vision_encoder, small_language_model(tokenizer), latents=2, depth=1).double()
    with torch.no_grad():
        for parameter in (*model.cross_attention_layers.parameters(), *model.resampler.parameters()):
            parameter.normal_(std=0.3)
    lines = [data.episode_lines(encoded, 5, number, 3) for number in range(4)]
    episodes = data.tokenize_episodes([lines[0][:1], lines[1][:2], *lines[2:]], tokenizer)
    features = encoded.features_of(episodes.rows.images).double()
    rows = episodes.rows
    all_episodes = (rows.token_ids, features, rows.image_index, rows.segments, episodes.loss_mask)
    text_ids, text_segments = pack_documents([[1, 5], [2, 3, 4], [1, 6, 7, 9, 3], [1, 8, 3, 9, 5, 4, 2, 6]], 8)
    assert len(text_ids) > 1 and has_previous_token(text_segments).sum(1).unique().numel() > 1
    text_ids, text_segments = text_ids[:2], text_segments[:2]
    tokens_per_row = train.TokensPerRow(5.0, 4.0)

    def step(parts: list[tuple[slice, slice]]) -> tuple[float, list[torch.Tensor]]:
        model.zero_grad()
        losses = []
        for episode_rows, text_rows in parts:
            batch = tuple(x[episode_rows] for x in all_episodes), (text_ids[text_rows], text_segments[text_rows])
            losses.append(train.training_loss(model, batch, tokens_per_row))
            losses[-1].total.backward()
        summed = add_losses(losses)
        gradients = [p.grad / summed.terms for p in model.parameters() if p.grad is not None]
        return summed.mean().item(), gradients

    mean, gradients = step([(slice(0, 4), slice(0, 2))])
    accumulated_mean, accumulated = step([(slice(0, 2), slice(0, 1)), (slice(2, 4), slice(1, 2))])
    assert accumulated_mean == pytest.approx(mean, rel=1e-6)
    torch.testing.assert_close(accumulated, gradients, rtol=1e-6, atol=1e-8)


def test_the_weights_of_the_loss_give_both_data_sets_the_mean_over_their_tokens(vision_encoder, encoded, tokenizer):
    """One batch of all the training data has the mean over all answer tokens plus the mean over all text tokens."""
    recipe = train.FlamingoRecipe(1, documents=6, shots=2, batch_size=6, text_rows=1, latents=2)
    batches = train.mixed_batches(recipe, 0, encoded, tokenizer)
    model = train.build_flamingo(vision_encoder, small_language_model(tokenizer), latents=2, depth=1)
    text = train.packed_text(tokenizer, 0, 3)
    episodes = batches.episodes(0)
    logits = model(episodes[0], model.resample(episodes[1]), *episodes[2:4])
    expected = train.text_loss(logits, episodes[0], episodes[4])
    expected = expected + train.next_token_loss(evaluate.text_logits(model, *text), *text)
    loss = train.training_loss(model, (episodes, text), batches.tokens_per_row)
    torch.testing.assert_close(loss.mean(), expected)
    without = train.training_loss(model, (episodes, None), batches.tokens_per_row)
    assert without.mean() < loss.mean() and without.terms == 6


def test_at_gate_zero_plain_text_has_the_language_models_cross_entropy(vision_encoder, tokenizer):
    language_model = small_language_model(tokenizer)
    config = FlamingoConfig(ResamplerConfig(16, 2, 1, 2, 8), cross_attention_interval=1)
    model = Flamingo(config, vision_encoder, language_model)
    documents = [[1, 5, 9, 7], [1, 8, 30]]
    expected = cross_entropy_bits(language_model, documents)
    assert evaluate.text_bits(model, documents) == pytest.approx(expected, rel=1e-6)


def test_the_reference_equals_the_model(tmp_path):
    context = RunContext(seed=0, data="toybox", device="cpu", folder=tmp_path)
    measured = evaluate.check_against_reference(context)
    assert measured["changed_at_gate_zero"] == measured["mask_difference"] == 0
    assert measured["latent_counts"] == 1 and measured["logit_difference"] < 1e-6


@pytest.mark.parametrize("arm", arms.ARMS, ids=lambda arm: arm.name)
def test_every_preset_has_settings_that_its_arm_accepts(arm):
    module, _, name = arm.function.partition(":")
    assert callable(getattr(importlib.import_module(module), name))
    for settings in arm.presets.values():
        if name == "train_flamingo":
            train.FlamingoRecipe(**settings)
        else:
            assert not settings
