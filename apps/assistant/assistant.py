"""An assistant that answers questions about images, in Python and for the service.

assistant = Assistant.from_folder("runs/assistant/debug/model")
assistant.caption_image("cat.jpg")
assistant.answer_question("cat.jpg", "what color is it?")
reply, history = assistant.chat("what is this?", images=["cat.jpg"])
reply, history = assistant.chat("and what is it doing?", history=history)
for text in assistant.stream(history, max_new_tokens=60): print(text, end="")
"""

from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from apps.assistant.attention import answer_texts, image_maps, patch_attention, patch_grid, visible_region
from apps.assistant.card import make_card, training_data_of
from apps.assistant.model_folder import (
    GenerationSettings,
    chat_template,
    load_model,
    read_generation_settings,
    read_preprocessing,
    write_generation_settings,
    write_preprocessing,
)
from apps.assistant.records import IMAGE
from lessons.lesson_02_clip.model.preprocessing import ImagePreprocessing
from lessons.lesson_05_llava.model import Llava
from shared.devices import usable_device
from shared.images import ImageSource, open_image
from shared.serving import ROLES, GenerationRequest, ImageAttention, Message, ModelCard, UnsupportedRequest
from shared.tokenizers import TextStream, Tokenizer, Turn, load_tokenizer, save_tokenizer
from shared.transformer import Sampling, seeded_generator, stream

MAX_NEW_TOKENS = 128
END_OF_TEXT = "<|endoftext|>"


class Assistant:
    """A trained model with its tokenizer and image preprocessing; a `ServedModel` for shared/serving."""

    def __init__(
        self,
        model: Llava,
        tokenizer: Tokenizer,
        preprocessing: ImagePreprocessing,
        settings: GenerationSettings,
        *,
        name: str = "assistant",
    ):
        self.model, self.tokenizer, self.preprocessing = model.eval(), tokenizer, preprocessing
        self.template, self.settings, self.name = chat_template(tokenizer), settings, name
        with torch.no_grad():
            blank = torch.zeros(1, 3, preprocessing.size, preprocessing.size, device=self.device)
            self.image_tokens = model.projector(model.image_features(blank)).shape[1]

    @property
    def card(self) -> ModelCard:
        """What the service states about this assistant: what it was trained on, and sample scenes."""
        return make_card(self.settings.training_data, self.preprocessing.size)

    @classmethod
    def from_folder(cls, folder: Path | str, *, device: torch.device | str = "cpu") -> "Assistant":
        """Load an assistant from a folder that training wrote, or from data/checkpoints.

        Raises CourseError when the folder holds none, or this machine has no such device.
        """
        folder, device = Path(folder), usable_device(device)
        model, tokenizer = load_model(folder).to(device), load_tokenizer(folder / "tokenizer.json")
        preprocessing = read_preprocessing(folder, model.vision_encoder.config.image_size)
        settings = read_generation_settings(folder)
        settings = replace(settings, training_data=training_data_of(folder, settings.training_data))
        return cls(model, tokenizer, preprocessing, settings, name=_model_name(folder))

    def save(self, folder: Path | str) -> None:
        """Write the folder that `from_folder` reads. Raises CourseError when the disk refuses."""
        folder = Path(folder)
        self.model.save_pretrained(folder)
        save_tokenizer(self.tokenizer, folder / "tokenizer.json")
        write_preprocessing(folder, self.preprocessing)
        write_generation_settings(folder, self.settings)

    @property
    def context_length(self) -> int:
        """Most tokens of a prompt and its answer together."""
        return self.settings.context

    @property
    def device(self) -> torch.device:
        return self.model.language_model.embedding.weight.device

    # ── In Python ─────────────────────────────────────────────────────────────────────────────────────────────────

    def caption_image(
        self, image: ImageSource | Sequence[ImageSource], *, prompt: str | None = None, **options: Any
    ) -> str | list[str]:
        """Return the caption of an image, or a list for several; `options` are those of `make_request`."""
        return self.answer_question(image, prompt or self.settings.caption_prompt, **options)

    def answer_question(
        self, image: ImageSource | Sequence[ImageSource], question: str | Sequence[str], **options: Any
    ) -> str | list[str]:
        """Return the answer to a question about an image; a list for several images or several questions.

        Raises ValueError for several of each in different numbers, and CourseError for a damaged image.
        """
        images = [image] if isinstance(image, ImageSource) else list(image)
        questions = [question] if isinstance(question, str) else list(question)
        count = max(len(images), len(questions)) if images and questions else 0
        if count and {len(images), len(questions)} - {1, count}:
            raise ValueError(
                f"{len(images)} images and {len(questions)} questions; expected one of either, or equally many"
            )
        images, questions = (each * count if len(each) == 1 else each[:count] for each in (images, questions))
        answers = self.complete(
            [
                make_request((Message("user", text, (open_image(source),)),), **options)
                for source, text in zip(images, questions, strict=True)
            ]
        )
        single = isinstance(image, ImageSource) and isinstance(question, str)
        return answers[0] if single else answers

    def chat(
        self, text: str, *, images: Sequence[ImageSource] = (), history: Sequence[Message] = (), **options: Any
    ) -> tuple[str, tuple[Message, ...]]:
        """Return the reply to `text` after `history`, and the extended history for the next call."""
        messages = (*history, Message("user", text, tuple(map(open_image, images))))
        (reply,) = self.complete([make_request(messages, **options)])
        return reply, (*messages, Message("assistant", reply))

    def stream(self, messages: Sequence[Message], **options: Any) -> Iterator[str]:
        """Yield the reply to a conversation token by token."""
        return (text for (text,) in self.generate([make_request(messages, **options)]) if text is not None)

    def complete(self, requests: Sequence[GenerationRequest], *, batch_size: int = 16) -> list[str]:
        """Return the complete answer to each request, computed in batches."""
        answers: list[str] = []
        for start in range(0, len(requests), batch_size):
            batch = requests[start : start + batch_size]
            texts = [""] * len(batch)
            for step in self.generate(batch):
                texts = [text + (new_text or "") for text, new_text in zip(texts, step, strict=True)]
            answers += texts
        return answers

    # ── The interface of shared/serving/served_model.py ───────────────────────────────────────────────────────────

    def count_tokens(self, request: GenerationRequest) -> int:
        """Return the number of tokens of the prompt, images included, even when it is too long.

        Raises UnsupportedRequest when the last message is not the user's, or a role is unknown.
        """
        return len(self._prompt(request))

    def generate(self, requests: Sequence[GenerationRequest]) -> Iterator[list[str | None]]:
        """Answer a batch: yield each row's new text at each step, None once it has ended.

        Raises UnsupportedRequest as `count_tokens` does, and for a conversation that fills the context.
        """
        prompts = [self._prompt(each) for each in requests]
        if too_long := [len(prompt) for prompt in prompts if len(prompt) >= self.context_length]:
            raise UnsupportedRequest(
                f"the conversation has {too_long[0]:,} tokens, and the context holds {self.context_length:,} with the "
                "answer; leave out the oldest turns"
            )
        limits = [
            min(each.max_new_tokens, self.context_length - len(prompt))
            for each, prompt in zip(requests, prompts, strict=True)
        ]
        stop_ids = self._stop_ids()
        sampling = Sampling(
            max_new_tokens=limits,
            temperature=[float(each.temperature) for each in requests],
            top_p=[each.top_p for each in requests],
            stop_token_ids=stop_ids,
        )
        embeddings, generators = self._embed(requests, prompts), [seeded_generator(each.seed) for each in requests]
        text_streams = [TextStream(self.tokenizer) for _ in requests]
        steps = stream(self.model.language_model, embeddings, sampling, generator=generators)
        for number, token_ids in enumerate(steps, start=1):
            new_texts: list[str | None] = []
            for text_stream, token_id, limit in zip(text_streams, token_ids, limits, strict=True):
                if token_id is None:
                    new_texts.append(None)
                elif token_id in stop_ids:
                    new_texts.append(text_stream.close() or None)  # an incomplete character at the end
                else:
                    # Unused rows of the embedding have no token; a trained model does not predict them.
                    text = text_stream.write(token_id) if token_id < self.tokenizer.vocab_size else ""
                    new_texts.append(text + (text_stream.close() if number == limit else ""))
            yield new_texts

    def image_attention(self, request: GenerationRequest, answer: str) -> ImageAttention:
        """Return where the model attends in the images of a conversation while it generates an answer.

        Raises UnsupportedRequest as `count_tokens` does, without an image, when prompt and answer exceed the context,
        and for a model that receives no patches.
        """
        grid, prompt = patch_grid(self.model, self.image_tokens), self._prompt(request)
        images = [image for message in request.messages for image in message.images]
        try:
            answer_ids = self.tokenizer.encode(answer)
        except ValueError as error:
            raise UnsupportedRequest("the answer contains half a character; send the answer unchanged") from error
        token_ids = [*prompt, *answer_ids]
        if not images or not answer_ids or len(token_ids) > self.context_length:
            raise UnsupportedRequest(
                f"a conversation with {len(images)} images has {len(prompt)} tokens, and its answer {len(answer_ids)}; "
                f"expected an image, an answer, and at most {self.context_length:,} tokens in all"
            )
        (embeddings,) = self._embed([request], [token_ids])
        weights = patch_attention(self.model, token_ids, embeddings, len(prompt))
        regions = tuple(visible_region(self.preprocessing, *image.size) for image in images)
        return ImageAttention(answer_texts(self.tokenizer, answer_ids), regions, image_maps(weights, grid))

    def _stop_ids(self) -> set[int]:
        """Return the end of a turn, and the end of text, with which Qwen2 may end a conversation."""
        special_tokens = self.tokenizer.special_tokens
        return {special_tokens[name] for name in (self.template.end, END_OF_TEXT) if name in special_tokens}

    def _prompt(self, request: GenerationRequest) -> list[int]:
        messages = request.messages
        if not messages or messages[-1].role != "user":
            raise UnsupportedRequest("a conversation must end with a user message")
        if unknown := [message.role for message in messages if message.role not in ROLES]:
            raise UnsupportedRequest(f"the role {unknown[0]!r} is unknown; expected one of {', '.join(ROLES)}")
        if any(message.images for message in messages if message.role == "assistant"):
            raise UnsupportedRequest("an assistant message has images; only user messages may have them")
        turns = [Turn(each.role, f"{IMAGE}\n" * len(each.images) + _without_placeholder(each)) for each in messages]
        counts = [self.image_tokens] * sum(len(each.images) for each in messages)
        return self.template.encode(turns, image_token_counts=counts, add_generation_prompt=True).token_ids

    @torch.no_grad()
    def _embed(
        self, requests: Sequence[GenerationRequest], prompts: Sequence[list[int]]
    ) -> list[Float[Tensor, "_ width"]]:
        """Embed each prompt; the images of all requests are encoded as one batch."""
        images_of = [[image for message in each.messages for image in message.images] for each in requests]
        images = [image for row in images_of for image in row]
        features = self.model.image_features(self.preprocessing(images).to(self.device)) if images else None
        rows, start = [], 0
        for prompt, row_images in zip(prompts, images_of, strict=True):
            end = start + len(row_images)
            row_features = None if features is None or start == end else features[start:end]
            token_ids = torch.tensor([prompt], device=self.device)
            rows.append(self.model.input_embeddings(token_ids, row_features)[0])
            start = end
        return rows


def make_request(
    messages: Sequence[Message],
    *,
    max_new_tokens: int = MAX_NEW_TOKENS,
    temperature: float = 0.0,
    top_p: float | None = None,
    seed: int | None = None,
) -> GenerationRequest:
    """Return a request with default settings: the most likely tokens, at most `MAX_NEW_TOKENS`."""
    return GenerationRequest(tuple(messages), max_new_tokens, temperature, top_p, seed)


def _model_name(folder: Path) -> str:
    """Return the folder's name, or for a run's subfolder `model` the run's name."""
    folder = folder.resolve()
    return folder.parent.name if folder.name == "model" else folder.name


def _without_placeholder(message: Message) -> str:
    """Return the text with "<image>" broken up, so that typed text cannot add an image.

    The template reads no special tokens in the assistant's own text.
    """
    return message.text if message.role == "assistant" else message.text.replace(IMAGE, "< image>")
