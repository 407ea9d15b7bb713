"""A chatbot as a folder: made once, kept, and taken up again to talk.

bot.json           which of the two it is
tokenizer.json
config.json, model.safetensors     as LlamaForCausalLM has them
"""

import json
import shutil
from dataclasses import dataclass
from pathlib import Path

import torch

from apps.chatbots.dialogues import dialogue_at
from apps.chatbots.expert import expert_model, expert_tokenizer, lessons_from, teach_expert
from apps.chatbots.facts import read_texts
from apps.chatbots.teacher import teach_to_answer, teach_to_prefer
from lessons.lesson_00_foundations.decoder.model import LanguageModel
from lessons.lesson_00_foundations.decoder.model.toy_decoder import load_language_model
from shared.atomic import write_atomically
from shared.errors import CourseError
from shared.tokenizers import ChatTemplate, Tokenizer, load_tokenizer, save_tokenizer

KINDS = ("expert", "teacher")
RECORD = "bot.json"


@dataclass(frozen=True)
class Bot:
    """A model that has learned to answer, and how what is said to it is written."""

    kind: str
    model: LanguageModel
    template: ChatTemplate


def make_expert(
    texts: Path, folder: Path, *, steps: int = 500, seed: int = 0, resume: bool = False, device: str = "cpu"
) -> Bot:
    """An expert of all that stands in a folder of texts. Raises CourseError when there is too little to ask for."""
    lessons = lessons_from(read_texts(texts))
    template = ChatTemplate(expert_tokenizer(lessons))
    torch.manual_seed(seed)
    model = expert_model(template.tokenizer.vocab_size)
    teach_expert(
        model, template, lessons, steps=steps, folder=folder / "training", resume=resume, device=device, seed=seed
    )
    return _kept(folder, "expert", model, template.tokenizer)


def make_teacher(
    folder: Path,
    *,
    steps: int = 300,
    preference_steps: int = 40,
    dialogues: int = 9600,
    pairs: int = 800,
    seed: int = 0,
    resume: bool = False,
    device: str = "cpu",
) -> Bot:
    """A patient teacher of the toy world, made from lesson 0's decoder. Raises CourseError when that has not been trained."""
    torch.manual_seed(seed)
    model, tokenizer = load_language_model()
    model.requires_grad_(True)
    template = ChatTemplate(tokenizer)
    spoken = [dialogue_at("train", seed, number) for number in range(dialogues + pairs)]
    settings = {"resume": resume, "device": device, "seed": seed}
    teach_to_answer(model, template, spoken[:dialogues], steps=steps, folder=folder / "answers", **settings)
    teach_to_prefer(
        model, template, spoken[dialogues:], steps=preference_steps, folder=folder / "preferences", **settings
    )
    return _kept(folder, "teacher", model, tokenizer)


def _kept(folder: Path, kind: str, model: LanguageModel, tokenizer: Tokenizer) -> Bot:
    """Write the bot; what only its training needed goes."""
    bot = Bot(kind, model.eval().cpu(), ChatTemplate(tokenizer))
    model.save_pretrained(folder, bos_token_id=tokenizer.special_tokens[bot.template.begin])
    save_tokenizer(tokenizer, folder / "tokenizer.json")
    write_atomically(folder / RECORD, (json.dumps({"kind": kind}) + "\n").encode())
    for stage in ("training", "answers", "preferences"):
        shutil.rmtree(folder / stage, ignore_errors=True)
    return bot


def load_bot(folder: Path) -> Bot:
    """A bot that was kept. Raises CourseError when the folder holds none."""
    try:
        kind = json.loads((folder / RECORD).read_text(encoding="utf-8"))["kind"]
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise CourseError(
            f"{folder} holds no chatbot ({error}); make one: python -m apps.chatbots.train expert TEXTS"
        ) from error
    return Bot(kind, LanguageModel.from_pretrained(folder), ChatTemplate(load_tokenizer(folder / "tokenizer.json")))
