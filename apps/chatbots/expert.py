"""The expert: a small decoder trained on a folder of texts to answer questions with the sentences of these texts."""

import re
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from math import fsum

import torch

from apps.chatbots.facts import NEW_WORDINGS, WORDINGS, Fact, facts_in, read_exam, split_sentences
from lessons.lesson_00_foundations.decoder.model import LanguageModel
from lessons.lesson_00_foundations.decoder.model.toy_decoder import ROTARY_BASE
from shared.errors import CourseError
from shared.finetuning import SupervisedRecipe, answer_questions, question_and_answer, train_on_conversations
from shared.tokenizers import ChatTemplate, EncodedConversation, Tokenizer
from shared.tokenizers.special_tokens import BEGIN_TOKEN, SPECIAL_TOKENS
from shared.training import RunOptions, TrainingResult
from shared.transformer import DecoderConfig

VOCABULARY = 1500
READ_ONLY_EVERY = 8
"""One fact in so many is in the training texts but in no training question."""
KEYWORD_QUESTIONS = 8
"""Number of training questions per fact that name only some words of its sentence."""
SENTENCE_REPEATS = 3
"""How often each sentence occurs as plain text in the training set."""

Pairs = list[tuple[str, str]]
"""Questions, each with the sentence that answers it."""


@dataclass(frozen=True)
class ExpertRecipe(SupervisedRecipe):
    """Set how the expert is trained.

    train_on_sentences  train on the sentences as plain text
    train_on_questions  train on questions with their answers
    """

    steps: int = 500
    batch_size: int = 32
    learning_rate: float = 8e-3
    train_on_sentences: bool = True
    train_on_questions: bool = True


@dataclass(frozen=True)
class ExpertData:
    """Hold the training questions and the test sets made from a folder of texts.

    held_out_wordings  the facts of the training questions, each in a wording held out for this fact
    new_wordings       the same facts, in wordings that no training question has
    read_only          facts that are in the training sentences and in no training question
    """

    sentences: list[str]
    questions: Pairs
    held_out_wordings: Pairs
    new_wordings: Pairs
    read_only: Pairs


def expert_data(texts: Sequence[str]) -> ExpertData:
    """Make training questions and test sets. Raise CourseError when the texts have fewer than two facts."""
    facts = facts_in(texts)
    if len(facts) < 2:
        raise CourseError(
            f"the texts have {len(facts)} sentences that say what something is or does (“A patch is a square of "
            "pixels.”); an expert needs two or more"
        )
    read_only = [fact for number, fact in enumerate(facts) if number % READ_ONLY_EVERY == READ_ONLY_EVERY - 1]
    questioned = [fact for number, fact in enumerate(facts) if number % READ_ONLY_EVERY != READ_ONLY_EVERY - 1]

    def held_out_wording(number: int) -> str:
        return WORDINGS[number % len(WORDINGS)]

    def pair(fact: Fact, wording: str) -> tuple[str, str]:
        return fact.question(wording), fact.sentence

    return ExpertData(
        sentences=[sentence for text in texts for sentence in split_sentences(text)],
        questions=[
            pair(fact, wording)
            for number, fact in enumerate(questioned)
            for wording in WORDINGS
            if wording != held_out_wording(number)
        ]
        + [
            (fact.keyword_question(number), fact.sentence) for fact in questioned for number in range(KEYWORD_QUESTIONS)
        ],
        held_out_wordings=[pair(fact, held_out_wording(number)) for number, fact in enumerate(questioned)],
        new_wordings=[pair(fact, wording) for fact in questioned for wording in NEW_WORDINGS],
        read_only=[pair(fact, wording) for fact in read_only for wording in WORDINGS[:3]],
    )


def expert_tokenizer(data: ExpertData) -> Tokenizer:
    """Train byte pair encoding on the sentences and the training questions."""
    texts = [*data.sentences, *(question for question, _ in data.questions)]
    return Tokenizer.train(texts, VOCABULARY, special_tokens=SPECIAL_TOKENS, min_frequency=2)


def expert_model(vocab_size: int, seed: int) -> LanguageModel:
    """Return a new decoder: lesson 0's checkpoint is trained on toy-world text only, so it does not help here."""
    torch.manual_seed(seed)
    return LanguageModel(
        DecoderConfig(
            vocab_size,
            width=64,
            depth=3,
            heads=4,
            kv_heads=4,
            mlp_dim=160,
            rotary_base=ROTARY_BASE,
            tied=True,
        )
    )


def train_expert(
    model: LanguageModel, template: ChatTemplate, data: ExpertData, recipe: ExpertRecipe, *, seed: int, run: RunOptions
) -> TrainingResult:
    """Train on sentences and questions, shuffled. Raise as `shared.training.train` does."""
    conversations = (
        [question_and_answer(template, *pair) for pair in data.questions] if recipe.train_on_questions else []
    )
    if recipe.train_on_sentences:
        plain = [plain_text(template.tokenizer, sentence) for sentence in data.sentences]
        conversations += plain * SENTENCE_REPEATS
    return train_on_conversations(model, conversations, recipe, seed=seed, run=run)


def plain_text(tokenizer: Tokenizer, text: str) -> EncodedConversation:
    """Encode a text whose tokens all count in the loss."""
    tokens = tokenizer.encode(text)
    return EncodedConversation([tokenizer.special_tokens[BEGIN_TOKEN], *tokens], [False, *[True] * len(tokens)])


# ── Evaluation ────────────────────────────────────────────────────────────────────────────────────────────────────────


def evaluate_expert(
    model: LanguageModel, template: ChatTemplate, data: ExpertData, *, exam: bool = False
) -> dict[str, dict[str, float]]:
    """Return, per test set, its size and the exact-match accuracy of the model and of word matching.

    exam  add the questions of `exam.txt`, which are about the app's own texts
    """
    test_sets = {name: getattr(data, name) for name in ("held_out_wordings", "new_wordings", "read_only")}
    test_sets |= {"exam": read_exam()} if exam else {}
    return {
        name: {
            "questions": len(pairs),
            "accuracy": exact_match(model, template, pairs),
            "word_matching": sum(best_match(question, data.sentences) == answer for question, answer in pairs)
            / len(pairs),
        }
        for name, pairs in test_sets.items()
        if pairs
    }


def exact_match(model: LanguageModel, template: ChatTemplate, pairs: Sequence[tuple[str, str]]) -> float:
    """Return the fraction of questions that the model answers with exactly the sentence that answers them."""
    answers = answer_questions(model, template, [question for question, _ in pairs])
    return sum(answer == expected for answer, (_, expected) in zip(answers, pairs, strict=True)) / len(pairs)


def best_match(question: str, sentences: Sequence[str]) -> str:
    """Return the sentence that shares most words with the question, rare words weighted higher.

    This is the baseline without training.
    """
    bags = [stems(sentence) for sentence in sentences]
    frequency = Counter(word for bag in bags for word in bag)
    question_words = stems(question)
    # A set has another order in every process; the rounding of fsum does not depend on it.
    scores = [fsum(1 / frequency[word] for word in bag & question_words) for bag in bags]
    return sentences[max(range(len(sentences)), key=lambda number: (scores[number], -len(bags[number])))]


def stems(text: str) -> set[str]:
    """Return the different words of a text without a final s: “holds” and “hold” are one."""
    return {word.rstrip("s") for word in re.findall(r"\w+", text.lower())}
