"""The language model that later lessons keep frozen: whole, and able to do what they need of it."""

import pytest
import torch
from transformers import LlamaForCausalLM

from data.toybox.heldout import scene_at
from data.toybox.language import caption
from data.toybox.questions import ANSWERS, question_at
from data.toybox.scene import SHAPES
from lessons.lesson_00_foundations.decoder.experiment.checkpoint import CHECKPOINT, FOLDER, make
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


def write(model, tokenizer, beginning, tokens=12):
    prompt = torch.tensor([tokenizer.special_tokens[BEGIN_TOKEN], *tokenizer.encode(beginning)])
    return tokenizer.decode(generate(model, [prompt], Sampling(tokens))[0].tolist())


def test_it_is_what_its_provenance_says():
    assert checkpoint_errors([CHECKPOINT]) == []


@pytest.mark.parametrize(("kind", "few", "many", "before", "after"), [
    ("naming", 0, 2, 0.1, 0.8), ("choosing", 0, 8, 0.55, 0.8),
])  # fmt: skip
def test_it_follows_rules_that_were_held_out(model, tokenizer, kind, few, many, before, after):
    found = episode_accuracies(model, tokenizer, kind, 7, held_out=True, count=60)
    assert found[few] < before and found[many] > after


def test_it_goes_on_with_a_game_it_is_shown(model, tokenizer):
    shown = "small striped red circle: circle small.\nlarge plain blue star: star large.\nsmall dotted pink heart:"
    assert write(model, tokenizer, shown, 3).startswith(" heart small.")


def test_it_completes_a_caption(model, tokenizer):
    written = write(model, tokenizer, "a picture of a large plain green")
    assert written.split()[0].rstrip(",.s") in SHAPES
    new = [caption(scene_at("validation", 5, number), "attributes") + "\n" for number in range(20)]
    costs = cross_entropy_bits(model, encode_documents(tokenizer, new)) / sum(map(len, new))
    backwards = [" ".join(reversed(document.split())) + "\n" for document in new]
    assert costs < 1 < cross_entropy_bits(model, encode_documents(tokenizer, backwards)) / sum(map(len, backwards))


def test_it_answers_questions_better_than_a_guess(model, tokenizer):
    questions = [question_at("validation", 11, number, objects=(2, 4)) for number in range(120)]
    asked = [f"{caption(scene, 'places')}. {question.text}" for scene, question in questions]
    prompts = [torch.tensor(row) for row in encode_documents(tokenizer, asked)]
    written = [tokenizer.decode(tokens.tolist()) for tokens in generate(model, prompts, Sampling(4))]
    right = sum(
        text.startswith(f" {question.answer}\n") for text, (_, question) in zip(written, questions, strict=True)
    )
    # Each answer of a kind is as frequent as the others, of which there are two to nine.
    guess = sum(1 / len(ANSWERS[question.type]) for _, question in questions)
    assert right > 1.2 * guess


def test_transformers_reads_it_too(model):
    theirs = LlamaForCausalLM.from_pretrained(FOLDER, dtype=torch.float32)
    tokens = torch.randint(4, model.config.vocab_size, (2, 30))
    with torch.no_grad():
        torch.testing.assert_close(model(tokens), theirs(tokens).logits, atol=1e-4, rtol=0)


def test_it_is_made_by_what_makes_it(tmp_path):
    measured = make(tmp_path, steps=2, documents=60, width=16, depth=1, heads=2, kv_heads=1, mlp_dim=16)
    assert {path.name for path in tmp_path.iterdir()} == {"config.json", "model.safetensors", "tokenizer.json"}
    assert LanguageModel.from_pretrained(tmp_path).config.width == 16
    assert all(isinstance(value, int | float) for value in measured.values()) and "bits_per_byte" in measured
