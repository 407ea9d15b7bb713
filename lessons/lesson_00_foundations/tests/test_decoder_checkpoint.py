"""The shipped language model: complete, and capable of what later lessons need."""

import pytest
import torch
from transformers import LlamaForCausalLM

from data.toybox.heldout import scene_at
from data.toybox.language import caption
from data.toybox.questions import ANSWERS, question_at
from data.toybox.scene import SHAPES
from lessons.lesson_00_foundations.decoder.experiment.checkpoint import CHECKPOINT, FOLDER, build_checkpoint
from lessons.lesson_00_foundations.decoder.experiment.curriculum import CurriculumRecipe
from lessons.lesson_00_foundations.decoder.model import LanguageModel
from lessons.lesson_00_foundations.decoder.model.evaluation import (
    cross_entropy_bits,
    encode_documents,
    episode_accuracies,
)
from shared.course.checkpoint import checkpoint_errors
from shared.tokenizers import load_tokenizer
from shared.tokenizers.special_tokens import BEGIN_TOKEN
from shared.transformer import Sampling, generate


@pytest.fixture(scope="module")
def tokenizer():
    return load_tokenizer(FOLDER / "tokenizer.json")


@pytest.fixture(scope="module")
def model():
    return LanguageModel.from_pretrained(FOLDER)


def continue_text(model, tokenizer, text, tokens=12):
    """Return the model's greedy continuation of a text."""
    prompt = torch.tensor([tokenizer.special_tokens[BEGIN_TOKEN], *tokenizer.encode(text)])
    return tokenizer.decode(generate(model, [prompt], Sampling(tokens))[0].tolist())


def test_its_files_match_its_provenance():
    assert checkpoint_errors([CHECKPOINT]) == []


@pytest.mark.parametrize(
    ("episode_type", "few", "many", "before", "after"),
    [("naming", 0, 2, 0.1, 0.8), ("choosing", 0, 8, 0.55, 0.8)],
)
def test_it_follows_held_out_rules(model, tokenizer, episode_type, few, many, before, after):
    accuracies = episode_accuracies(model, tokenizer, episode_type, 7, held_out=True, count=60)
    assert accuracies[few] < before and accuracies[many] > after


def test_it_continues_an_episode(model, tokenizer):
    prompt = "small striped red circle: circle small.\nlarge plain blue star: star large.\nsmall dotted pink heart:"
    assert continue_text(model, tokenizer, prompt, 3).startswith(" heart small.")


def test_it_completes_a_caption(model, tokenizer):
    written = continue_text(model, tokenizer, "an image of a large plain green")
    assert written.split()[0].rstrip(",.s") in SHAPES
    new = [caption(scene_at("validation", 5, number), "attributes") + "\n" for number in range(20)]
    bits_per_byte = cross_entropy_bits(model, encode_documents(tokenizer, new)) / sum(map(len, new))
    backwards = [" ".join(reversed(document.split())) + "\n" for document in new]
    assert (
        bits_per_byte < 1 < cross_entropy_bits(model, encode_documents(tokenizer, backwards)) / sum(map(len, backwards))
    )


def test_it_answers_questions_better_than_chance(model, tokenizer):
    questions = [question_at("validation", 11, number, objects=(2, 4)) for number in range(120)]
    texts = [f"{caption(scene, 'places')}. {question.text}" for scene, question in questions]
    prompts = [torch.tensor(row) for row in encode_documents(tokenizer, texts)]
    answers = [tokenizer.decode(tokens.tolist()) for tokens in generate(model, prompts, Sampling(4))]
    right = sum(
        text.startswith(f" {question.answer}\n") for text, (_, question) in zip(answers, questions, strict=True)
    )
    # All answers of a question type are equally frequent; a type has two to nine of them.
    chance = sum(1 / len(ANSWERS[question.type]) for _, question in questions)
    assert right > 1.2 * chance


def test_transformers_loads_it(model):
    published = LlamaForCausalLM.from_pretrained(FOLDER, dtype=torch.float32)
    token_ids = torch.randint(4, model.config.vocab_size, (2, 30))
    with torch.no_grad():
        torch.testing.assert_close(model(token_ids), published(token_ids).logits, atol=1e-4, rtol=0)


def test_a_small_checkpoint_can_be_built(tmp_path):
    recipe = CurriculumRecipe(steps=2, rows=2, questions=10)
    measured = build_checkpoint(tmp_path, recipe, width=16, depth=1, heads=2, kv_heads=1, mlp_dim=16)
    assert {path.name for path in tmp_path.iterdir()} == {"config.json", "model.safetensors", "tokenizer.json"}
    assert LanguageModel.from_pretrained(tmp_path).config.width == 16
    assert all(isinstance(value, int | float) for value in measured.values()) and "count_unseen" in measured
