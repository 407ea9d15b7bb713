"""The arm that adapts a model with the skill: LLaVA, which answers in a word, learns to answer in full sentences.

    what color is the star? red              before
    what color is the star? it is red.       after

Each tuning method starts from the same trained LLaVA. Its rank and learning rate are chosen on validation scenes.
"""

import copy
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from data.toybox.heldout import TEST_SEED
from data.toybox.language import WHERE
from data.toybox.questions import Question
from lessons.lesson_05_llava.experiment.data import (
    DataSource,
    TrainingConversations,
    encode_scenes,
    evaluation_questions,
    question_of_number,
)
from lessons.lesson_05_llava.experiment.evaluate import answer_accuracy
from lessons.lesson_05_llava.experiment.train import (
    TUNINGS,
    Recipe,
    Tuning,
    data_source,
    llava_loss,
    prepare_tuning,
    train_stage,
    training_batches,
    untrained_llava,
)
from lessons.lesson_05_llava.model import Llava, first_stage, loss_mask, second_stage
from shared.course.context import RunContext
from shared.finetuning import adapter_parameter_names, sft_loss
from shared.training import Stage, muon_config, train

MAX_NEW_TOKENS = 12
SEED_OFFSET = 2
"""Added to the seed of the adaptation's scenes: both stages of LLaVA used other ones."""


@dataclass(frozen=True)
class StyleRecipe:
    """Set the adaptation to full sentences.

    steps           training steps of each trial
    scenes          training scenes, with one question each
    validation      validation scenes, with one question each, on which a method's best trial is chosen
    ranks           ranks of the adapters to try; full fine-tuning has none
    learning_rates  learning rates to try
    """

    steps: int
    scenes: int
    validation: int
    ranks: Sequence[int]
    learning_rates: Sequence[float]

    def trials(self, tuning: Tuning) -> Iterator[tuple[int, float]]:
        """Yield the (rank, learning rate) pairs to try with a tuning method."""
        for rank in self.ranks[:1] if tuning == "full" else self.ranks:
            for learning_rate in self.learning_rates:
                yield rank, learning_rate


def sentence(question: Question) -> str:
    """Return the answer to a question about one object as a full sentence.

    Raises ValueError for a question type about several objects.
    """
    answer = question.answer
    if question.type == "existence":
        return "yes, there is one." if answer == "yes" else "no, there is none."
    phrases = {"shape": f"a {answer}", "place": WHERE.get(answer)} | dict.fromkeys(("color", "size", "texture"), answer)
    if question.type not in phrases:
        raise ValueError(f"no sentence for the {question.type} question {question.text!r}; use questions on one object")
    return f"it is {phrases[question.type]}."


def adapt_answer_style(
    context: RunContext,
    *,
    first_steps: int,
    second_steps: int,
    style: dict,
    held_out: int = 480,
    **recipe_values,
) -> dict:
    """Train LLaVA on short answers, then adapt its language model to full sentences with each tuning method.

    first_steps, second_steps  steps of LLaVA's stages
    style                      fields of `StyleRecipe`
    recipe_values              fields of `Recipe`

    Returns exact-match accuracies on scenes with unseen combinations: before the adaptation, of words (`words_before`)
    and of sentences (`sentences_before`), and of sentences after it per method, with the chosen rank and learning rate.
    The context's data set is not used.
    """
    recipe, style_recipe = Recipe(**recipe_values), StyleRecipe(**style)
    torch.manual_seed(context.seed)
    start, tokenizer = untrained_llava(context.device, recipe.feature_layer)
    source = data_source(start, tokenizer, recipe, context)
    train_stage(source, first_stage(first_steps), recipe, context, "stage-1")
    train_stage(source, second_stage(second_steps, start), recipe, context, "stage-2")
    questions = evaluation_questions(source, "test", TEST_SEED, held_out)
    measured = {"words_before": answer_accuracy(start, tokenizer, questions, context.device, "words")["words"]}
    measured["sentences_before"] = sentence_accuracy(source, start, held_out)["sentences"]
    for tuning in TUNINGS:
        model, chosen = best_trial(source, recipe, style_recipe, tuning, context)
        accuracy = sentence_accuracy(source, model, held_out)
        measured |= {f"{tuning}_{name}": value for name, value in (accuracy | chosen).items()}
    return measured


def sentence_accuracy(source: DataSource, model: Llava, count: int) -> dict[str, float]:
    """Return the exact-match accuracy of sentences on unseen combinations, in total and by question type."""
    questions = evaluation_questions(source, "test", TEST_SEED, count, sentence)
    accuracy = answer_accuracy(
        model, source.tokenizer, questions, source.device, "sentences", max_new_tokens=MAX_NEW_TOKENS
    )
    return {name: value for name, value in accuracy.items() if isinstance(value, float)}


def best_trial(
    source: DataSource, recipe: Recipe, style: StyleRecipe, tuning: Tuning, context: RunContext
) -> tuple[Llava, dict[str, float]]:
    """Adapt a copy of the source's model per trial; return the one with the least validation loss, and its settings."""
    training = sentence_data(source, "train", context.seed + SEED_OFFSET, style.scenes)
    validation = sentence_data(source, "validation", context.seed, style.validation)
    best: tuple[Llava, dict[str, float]] | None = None
    for rank, learning_rate in style.trials(tuning):
        torch.manual_seed(context.seed)
        model = copy.deepcopy(source.model)
        prepare_tuning(model, tuning, rank)
        train(
            model,
            training_batches(model, training, recipe, context.seed),
            llava_loss,
            muon_config(style.steps, learning_rate, seed=context.seed, log_lines=2),
            run=context.subfolder(f"{tuning}-{rank}-{learning_rate:g}").run_options(),
            stages=(Stage(style.steps, adapter_parameter_names(model) or ("language_model.*",)),),
        )
        loss = mean_loss(model, validation)
        if best is None or loss < best[1]["validation_loss"]:
            best = model, {"rank": float(rank), "learning_rate": learning_rate, "validation_loss": loss}
    assert best is not None, "a recipe has at least one rank and one learning rate"
    return best


def sentence_data(source: DataSource, split: str, seed: int, count: int) -> TrainingConversations:
    """Return scenes of a split with one question each, answered in a full sentence."""
    pairs = [question_of_number(split, seed, number, source.setting) for number in range(count)]
    turns = [[(question.text, sentence(question))] for _, question in pairs]
    return encode_scenes(source, [scene for scene, _ in pairs], turns)


@torch.no_grad()
def mean_loss(model: Llava, conversations: TrainingConversations) -> float:
    """Return the mean cross-entropy of the answers' tokens, in nats."""
    model.eval()
    device = model.language_model.embedding.weight.device
    features, token_ids, answers, segments = (
        tensor.to(device)
        for tensor in (
            conversations.features,
            conversations.token_ids,
            conversations.answer_mask,
            conversations.segments,
        )
    )
    mask: Tensor = loss_mask(token_ids, answers, segments, image_token_id=model.image_token_id)
    return sft_loss(model.logits(token_ids, features), token_ids, mask).mean().item()
