"""Conversations with a chatbot in the terminal."""

from collections.abc import Callable

from apps.chatbots.chatbot import Chatbot
from data.toybox.dialogues import dialogue_at
from shared.finetuning import answer_questions


def ask_expert(bot: Chatbot, question: str) -> str:
    """Return the expert's answer. Each question stands alone and is lower-cased, as in training."""
    return answer_questions(bot.model, bot.template, [question.lower()])[0]


class TeachingSession:
    """Keep the current scene of a conversation with the teacher; questions are about this scene."""

    def __init__(self, bot: Chatbot):
        self.bot, self.number, self.scene = bot, 0, ""

    def next_scene(self) -> str:
        """Move to another scene and return the text that introduces it."""
        dialogue = dialogue_at("validation", 1, self.number)
        self.scene, question = dialogue.question.split(". ", 1)
        self.number += 1
        return f"in view: {self.scene}.\nyou may ask: {question}"

    def ask(self, text: str) -> str:
        """Return the answer to “scene. question?”, or to a question about the current scene."""
        text = text.lower()
        if ". " in text:
            self.scene, text = text.split(". ", 1)
        return answer_questions(self.bot.model, self.bot.template, [f"{self.scene}. {text}"])[0]


def chat(bot: Chatbot, read: Callable[[], str], write: Callable[[str], None]) -> None:
    """Answer question after question until an empty line or the end of the input.

    For the teacher the line `new` moves to another scene.
    """
    session = TeachingSession(bot)
    if bot.kind == "teacher":
        write(session.next_scene())
    while True:
        try:
            text = read().strip()
        except EOFError:
            return
        if not text:
            return
        if bot.kind == "teacher":
            write(session.next_scene() if text == "new" else session.ask(text))
        else:
            write(ask_expert(bot, text))
