"""One who can be shown a picture and asked about it.

assistant = Assistant.from_folder("runs/assistant/model")
assistant.caption_image("cat.jpg")
assistant.answer_question("cat.jpg", "what colour is it?")
reply, history = assistant.chat("what is this?", images=["cat.jpg"])
reply, history = assistant.chat("and what is it doing?", history=history)
for piece in assistant.stream(history, max_new_tokens=60): print(piece, end="")
"""

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import torch
from jaxtyping import Float
from PIL import Image
from torch import Tensor

from apps.assistant.files import (
    Habits,
    habits_of,
    load_model,
    preprocessing_of,
    template_of,
    write_habits,
    write_preprocessing,
)
from apps.assistant.pictures import open_picture
from apps.assistant.records import IMAGE
from lessons.lesson_02_clip.model.preprocessing import ImagePreprocessing
from lessons.lesson_05_llava.model import Llava
from shared.serving.served_model import ROLES, GenerationRequest, Message, UnsupportedRequest
from shared.tokenizers import TextStream, Tokenizer, Turn, load_tokenizer, save_tokenizer
from shared.transformer import Sampling, stream

Picture = Image.Image | Path | str
MAX_NEW_TOKENS = 128


class Assistant:
    """A trained model with its tokenizer and its way with pictures; a `ServedModel`, as the service calls it."""

    def __init__(
        self,
        model: Llava,
        tokenizer: Tokenizer,
        preprocessing: ImagePreprocessing,
        habits: Habits,
        *,
        name: str = "assistant",
    ):
        self.model, self.tokenizer, self.preprocessing = model.eval(), tokenizer, preprocessing
        self.template, self.habits, self.name = template_of(tokenizer), habits, name
        with torch.no_grad():
            blank = torch.zeros(1, 3, preprocessing.size, preprocessing.size, device=self.device)
            self.image_tokens = model.projector(model.image_features(blank)).shape[1]

    @classmethod
    def from_folder(cls, folder: Path | str, *, device: torch.device | str = "cpu") -> "Assistant":
        """The assistant in a folder that training wrote, or a lesson's checkpoint.

        Raises CourseError, saying what is wrong, when the folder holds none.
        """
        folder = Path(folder)
        model, tokenizer = load_model(folder).to(device), load_tokenizer(folder / "tokenizer.json")
        preprocessing = preprocessing_of(folder, model.vision_encoder.config.image_size)
        return cls(model, tokenizer, preprocessing, habits_of(folder), name=_name(folder))

    def save(self, folder: Path | str) -> None:
        """Write the folder that `from_folder` reads. Raises CourseError when the disk refuses."""
        folder = Path(folder)
        self.model.save_pretrained(folder)
        save_tokenizer(self.tokenizer, folder / "tokenizer.json")
        write_preprocessing(folder, self.preprocessing)
        write_habits(folder, self.habits)

    @property
    def context_length(self) -> int:
        """Tokens that a prompt and its answer may have together."""
        return self.habits.context

    @property
    def device(self) -> torch.device:
        return self.model.language_model.embedding.weight.device

    # ── For people ────────────────────────────────────────────────────────────────────────────────────────────────

    def caption_image(
        self, image: Picture | Sequence[Picture], *, prompt: str | None = None, **settings: Any
    ) -> str | list[str]:
        """What a picture shows; of several pictures, a list. `settings` are those of `GenerationRequest`: max_new_tokens, temperature, …"""
        return self.answer_question(image, prompt or self.habits.caption_prompt, **settings)

    def answer_question(
        self, image: Picture | Sequence[Picture], question: str | Sequence[str], **settings: Any
    ) -> str | list[str]:
        """The answer to a question about a picture; of several pictures or several questions, a list.

        Raises ValueError when there are several of each, but not equally many, and CourseError for a broken picture.
        """
        images = [image] if isinstance(image, Picture) else list(image)
        questions = [question] if isinstance(question, str) else list(question)
        count = max(len(images), len(questions)) if images and questions else 0
        if count and {len(images), len(questions)} - {1, count}:
            raise ValueError(
                f"{len(images)} pictures and {len(questions)} questions; expected one of either, or equally many"
            )
        images, questions = (each * count if len(each) == 1 else each[:count] for each in (images, questions))
        asked = [
            request((Message("user", said, (open_picture(shown),)),), **settings)
            for shown, said in zip(images, questions, strict=True)
        ]
        answers = self.write(asked)
        several = not (isinstance(image, Picture) and isinstance(question, str))
        return answers if several else answers[0]

    def chat(
        self, text: str, *, images: Sequence[Picture] = (), history: Sequence[Message] = (), **settings: Any
    ) -> tuple[str, tuple[Message, ...]]:
        """The reply to `text` after all that was said before, and the history with both, to be given along next time."""
        said = (*history, Message("user", text, tuple(map(open_picture, images))))
        (reply,) = self.write([request(said, **settings)])
        return reply, (*said, Message("assistant", reply))

    def stream(self, messages: Sequence[Message], **settings: Any) -> Iterator[str]:
        """The reply to a conversation, piece by piece while it is being written."""
        return (piece for (piece,) in self.generate([request(messages, **settings)]) if piece is not None)

    def write(self, requests: Sequence[GenerationRequest], *, batch_size: int = 16) -> list[str]:
        """The whole answer to each request, `batch_size` of them side by side."""
        answers = []
        for start in range(0, len(requests), batch_size):
            batch = requests[start : start + batch_size]
            written = [""] * len(batch)
            for step in self.generate(batch):
                written = [text + (piece or "") for text, piece in zip(written, step, strict=True)]
            answers += written
        return answers

    # ── For the service (shared/serving/served_model.py) ───────────────────────────────────────────────────────────────

    def count_tokens(self, request: GenerationRequest) -> int:
        """Tokens of the prompt, pictures included.

        Raises UnsupportedRequest when nothing is asked last, or a side is unknown. (One that is too long is counted too: whoever asks
        decides what to say of it.)
        """
        return len(self._prompt(request))

    def generate(self, requests: Sequence[GenerationRequest]) -> Iterator[list[str | None]]:
        """Answer a batch, a token a step: what each row says newly, None once it has ended.

        Raises UnsupportedRequest as `count`, and for a conversation that leaves no room for an answer.
        """
        prompts = [self._prompt(each) for each in requests]
        if too_long := [len(prompt) for prompt in prompts if len(prompt) >= self.context_length]:
            raise UnsupportedRequest(
                f"the conversation takes {too_long[0]:,} tokens, and {self.context_length:,} are all that can be read and "
                "written; leave out the oldest turns"
            )
        limits = [
            min(each.max_new_tokens, self.context_length - len(prompt))
            for each, prompt in zip(requests, prompts, strict=True)
        ]
        stops = self._stops()
        texts = [TextStream(self.tokenizer) for _ in requests]
        steps = stream(
            self.model.language_model,
            self._embedded(requests, prompts),
            Sampling(
                max_new_tokens=limits,
                temperature=[float(each.temperature) for each in requests],
                top_p=[each.top_p for each in requests],
                stop_token_ids=stops,
            ),
            generator=[_generator(each.seed) for each in requests],
        )
        for number, tokens in enumerate(steps, start=1):
            said: list[str | None] = []
            for text, token, limit in zip(texts, tokens, limits, strict=True):
                if token is None:
                    said.append(None)
                elif token in stops:
                    said.append(text.close() or None)  # half a letter that will never be finished
                else:
                    # Of the rows that an embedding has to spare no token is known; a trained model never says one.
                    piece = text.write(token) if token < self.tokenizer.vocab_size else ""
                    said.append(piece + (text.close() if number == limit else ""))
            yield said

    def _stops(self) -> set[int]:
        """The end of a turn; and the end of all, which Qwen2 says where it means to stop talking altogether."""
        special_tokens = self.tokenizer.special_tokens
        return {special_tokens[name] for name in (self.template.end, "<|endoftext|>") if name in special_tokens}

    def _prompt(self, request: GenerationRequest) -> list[int]:
        messages = request.messages
        if not messages or messages[-1].role != "user":
            raise UnsupportedRequest("a conversation ends with what the user says")
        if unknown := [message.role for message in messages if message.role not in ROLES]:
            raise UnsupportedRequest(f"nobody in a conversation is {unknown[0]!r}; expected {', '.join(ROLES)}")
        if any(message.images for message in messages if message.role == "assistant"):
            raise UnsupportedRequest("the assistant shows no pictures; give them in what the user says")
        turns = [Turn(each.role, f"{IMAGE}\n" * len(each.images) + _plain(each)) for each in messages]
        shown = sum(len(each.images) for each in messages)
        numbers = self.template.encode(
            turns, image_token_counts=[self.image_tokens] * shown, add_generation_prompt=True
        ).token_ids
        return numbers

    @torch.no_grad()
    def _embedded(
        self, requests: Sequence[GenerationRequest], prompts: Sequence[list[int]]
    ) -> list[Float[Tensor, "_ width"]]:
        """Each prompt as vectors; all pictures are looked at together."""
        images = [[image for message in each.messages for image in message.images] for each in requests]
        flat = [image for own in images for image in own]
        features = self.model.image_features(self.preprocessing(flat).to(self.device)) if flat else None
        rows, seen = [], 0
        for prompt, own in zip(prompts, images, strict=True):
            mine = features[seen : seen + len(own)] if own else None
            rows.append(self.model.embeddings(torch.tensor([prompt], device=self.device), mine)[0])
            seen += len(own)
        return rows


def request(
    messages: Sequence[Message],
    *,
    max_new_tokens: int = MAX_NEW_TOKENS,
    temperature: float = 0.0,
    top_p: float | None = None,
    seed: int | None = None,
) -> GenerationRequest:
    """A request with the settings that one would want if one had not thought about it."""
    return GenerationRequest(tuple(messages), max_new_tokens, temperature, top_p, seed)


def _name(folder: Path) -> str:
    """What clients call it: the folder, or the run in which every run's folder `model` lies."""
    folder = folder.resolve()
    return folder.parent.name if folder.name == "model" else folder.name


def _plain(message: Message) -> str:
    """What is said, in which a typed "<image>" is a word and no picture. (In answers it is read as a word anyway.)"""
    return message.text if message.role == "assistant" else message.text.replace(IMAGE, "< image>")


def _generator(seed: int | None) -> torch.Generator:
    generator = torch.Generator()
    if seed is None:
        generator.seed()
    else:
        generator.manual_seed(seed % 2**63)
    return generator
