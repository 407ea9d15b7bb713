"""The expert of one field: a small decoder that reads a folder of texts and is taught, by questions, to say what stands there."""

import re
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from apps.chatbots.conversations import (
    ConversationBatches,
    answers_to,
    reading,
    supervised_loss,
    talk,
)
from apps.chatbots.facts import NEW_WORDINGS, WORDINGS, Fact, facts_in, sentences
from lessons.lesson_00_foundations.decoder.model import LanguageModel
from lessons.lesson_00_foundations.decoder.model.toy_decoder import ROTARY_BASE
from shared.errors import CourseError
from shared.tokenizers import ChatTemplate, Tokenizer
from shared.tokenizers.special_tokens import SPECIAL_TOKENS
from shared.training import RunOptions, TrainingConfig, TrainingResult, train
from shared.transformer import DecoderConfig

VOCABULARY = 1500
NEVER_ASKED = 8
"""One fact in so many is read and never asked for in training."""
ASKED_ABOUT = 8
"""How many questions name some words of a fact's sentence."""
READ = 3
"""How often a sentence is read for each round of questions."""


@dataclass(frozen=True)
class Lessons:
    """What the expert learns from, and what it is tested by: (question, answer) all."""

    asked: list[tuple[str, str]]
    kept_wordings: list[tuple[str, str]]
    """Facts that were asked for, in a wording that was kept back for them."""
    new_wordings: list[tuple[str, str]]
    """The same facts, in wordings that were never heard."""
    read_only: list[tuple[str, str]]
    """Facts that were read and never asked for."""
    read: list[str]
    """All sentences of the texts."""


def lessons_from(texts: Sequence[str]) -> Lessons:
    """Questions to learn from and questions to be tested by. Raises CourseError when the texts have too little to ask for."""
    facts = facts_in(texts)
    if len(facts) < 2:
        raise CourseError(
            f"the texts have {len(facts)} sentences that say something of something (“A patch is a square of pixels.”); "
            "an expert is made of two or more"
        )
    known = [fact for number, fact in enumerate(facts) if number % NEVER_ASKED != NEVER_ASKED - 1]
    only_read = [fact for number, fact in enumerate(facts) if number % NEVER_ASKED == NEVER_ASKED - 1]

    def kept(number: int) -> str:
        return WORDINGS[number % len(WORDINGS)]

    def pair(fact: Fact, wording: str) -> tuple[str, str]:
        return fact.ask(wording), fact.sentence

    return Lessons(
        asked=[
            pair(fact, wording) for number, fact in enumerate(known) for wording in WORDINGS if wording != kept(number)
        ]
        + [(fact.ask_about(number), fact.sentence) for fact in known for number in range(ASKED_ABOUT)],
        kept_wordings=[pair(fact, kept(number)) for number, fact in enumerate(known)],
        new_wordings=[pair(fact, wording) for fact in known for wording in NEW_WORDINGS],
        read_only=[pair(fact, wording) for fact in only_read for wording in WORDINGS[:3]],
        read=[sentence for text in texts for sentence in sentences(text)],
    )


def expert_tokenizer(lessons: Lessons) -> Tokenizer:
    """Byte pair encoding learned from the texts and the questions about them."""
    said = [*lessons.read, *(question for question, _ in lessons.asked)]
    return Tokenizer.train(said, VOCABULARY, special_tokens=SPECIAL_TOKENS, min_frequency=2)


def expert_model(
    vocabulary: int, *, width: int = 64, depth: int = 3, heads: int = 4, mlp_dim: int = 160
) -> LanguageModel:
    """A new decoder of lesson 0's kind: its own checkpoint has only ever read of coloured things."""
    return LanguageModel(
        DecoderConfig(vocabulary, width, depth, heads, heads, mlp_dim, rotary_base=ROTARY_BASE, tied=True)
    )


def teach_expert(
    model: LanguageModel,
    template: ChatTemplate,
    lessons: Lessons,
    *,
    steps: int,
    folder: Path | None,
    resume: bool = False,
    device: str = "cpu",
    seed: int = 0,
    batch_size: int = 32,
    learning_rate: float = 8e-3,
    reads: bool = True,
    asks: bool = True,
    label: str = "expert",
) -> TrainingResult:
    """Reading and supervised fine-tuning in one: sentences and conversations, shuffled. `reads` and `asks` leave one out."""
    conversations = [talk(template, *pair) for pair in lessons.asked] if asks else []
    conversations += [reading(template.tokenizer, sentence) for sentence in lessons.read] * READ if reads else []
    return train(
        model,
        ConversationBatches(conversations, batch_size=batch_size, seed=seed),
        supervised_loss,
        TrainingConfig(
            steps=steps,
            learning_rate=learning_rate,
            optimizer="muon",
            betas=(0.9, 0.95),
            warmup_steps=steps // 10,
            seed=seed,
            log_every=max(1, steps // 20),
        ),
        run=RunOptions(folder=folder, resume=resume, device=device, label=label),
    )


def share_right(model: LanguageModel, template: ChatTemplate, questions: Sequence[tuple[str, str]]) -> float:
    """The share of questions that are answered with the sentence that answers them, to the letter."""
    said = answers_to(model, template, [question for question, _ in questions])
    return sum(answer == right for answer, (_, right) in zip(said, questions, strict=True)) / len(questions)


def best_match(question: str, sentences: Sequence[str]) -> str:
    """The sentence that shares most words with the question, rare words counting more: the rival that learns nothing."""
    bags = [words_of(sentence) for sentence in sentences]
    often = Counter(word for bag in bags for word in bag)
    asked = words_of(question)
    scores = [sum(1 / often[word] for word in bag & asked) for bag in bags]
    return sentences[max(range(len(sentences)), key=lambda number: (scores[number], -len(bags[number])))]


def words_of(text: str) -> set[str]:
    """The different words of a text, their endings taken off: “holds” and “hold” are one."""
    return {word.rstrip("s") for word in re.findall(r"\w+", text.lower())}
