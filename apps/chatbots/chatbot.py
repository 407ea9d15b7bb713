"""A chatbot as a folder: write it after training, load it to talk.

bot.json                           which of the two it is
tokenizer.json
config.json, model.safetensors     in the layout of LlamaForCausalLM
"""

import json
import shutil
from dataclasses import dataclass, replace
from pathlib import Path

from apps.chatbots.expert import ExpertData, ExpertRecipe, expert_model, expert_tokenizer, train_expert
from apps.chatbots.teacher import TeacherRecipe, train_teacher
from lessons.lesson_00_foundations.decoder.model import LanguageModel
from shared.atomic import write_atomically
from shared.errors import CourseError
from shared.json_text import parse_json
from shared.tokenizers import ChatTemplate, load_tokenizer, save_tokenizer
from shared.training import RunOptions

KINDS = ("expert", "teacher")
RECORD = "bot.json"
TRAINING_FOLDERS = ("training", "answers", "preferences")
DEFAULT_RUN = RunOptions()


@dataclass(frozen=True)
class Chatbot:
    """Hold a fine-tuned model with the template of its conversations."""

    kind: str
    model: LanguageModel
    template: ChatTemplate


def make_expert(
    data: ExpertData, recipe: ExpertRecipe, folder: Path, *, seed: int = 0, run: RunOptions = DEFAULT_RUN
) -> Chatbot:
    """Train an expert and write it to `folder`. Of `run` only device and resume are used."""
    template = ChatTemplate(expert_tokenizer(data))
    model = expert_model(template.tokenizer.vocab_size, seed)
    training = replace(run, folder=folder / "training", label="expert")
    train_expert(model, template, data, recipe, seed=seed, run=training)
    return _write_finished(Chatbot("expert", model, template), folder)


def make_teacher(recipe: TeacherRecipe, folder: Path, *, seed: int = 0, run: RunOptions = DEFAULT_RUN) -> Chatbot:
    """Train a teacher and write it to `folder`. Raise CourseError when lesson 0's checkpoint is missing."""
    model, template = train_teacher(recipe, folder, seed=seed, run=run)
    return _write_finished(Chatbot("teacher", model, template), folder)


def _write_finished(bot: Chatbot, folder: Path) -> Chatbot:
    """Write the chatbot and remove the checkpoints of its training."""
    model, tokenizer = bot.model.eval().cpu(), bot.template.tokenizer
    assert bot.template.begin is not None
    model.save_pretrained(folder, bos_token_id=tokenizer.special_tokens[bot.template.begin])
    save_tokenizer(tokenizer, folder / "tokenizer.json")
    write_atomically(folder / RECORD, (json.dumps({"kind": bot.kind}) + "\n").encode())
    for stage in TRAINING_FOLDERS:
        shutil.rmtree(folder / stage, ignore_errors=True)
    return Chatbot(bot.kind, model, ChatTemplate(tokenizer))


def load_chatbot(folder: Path) -> Chatbot:
    """Load a chatbot. Raise CourseError when the folder holds none."""
    try:
        kind = parse_json((folder / RECORD).read_text(encoding="utf-8"))["kind"]
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise CourseError(
            f"{folder} holds no chatbot ({error}); train one first: python -m apps.chatbots train expert TEXTS"
        ) from error
    return Chatbot(kind, LanguageModel.from_pretrained(folder), ChatTemplate(load_tokenizer(folder / "tokenizer.json")))
