"""A captioner as a served model (shared/serving): one image in, its caption out, no conversation."""

from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
import torch
from jaxtyping import UInt8
from PIL import Image, ImageOps
from torch import Tensor

from apps.captioner.run_folder import load_captioner
from shared.serving import GenerationRequest, ModelCard, Settings, UnsupportedRequest
from shared.tokenizers import TextStream
from shared.tokenizers.special_tokens import BEGIN_TOKEN, END_TOKEN
from shared.transformer import Sampling, seeded_generator, stream

PROMPT = Settings.caption_prompt
MAX_CAPTION_TOKENS = 128
SCOPE = (
    "This captioner describes images such as those that it was trained on, in the words of their captions. It "
    "describes every other image, too, with the same confidence, and answers no questions."
)


class ServedCaptioner:
    """Caption images for the service. Raises CourseError when the run folder holds no captioner."""

    name = "captioner"
    card = ModelCard(SCOPE, accepts_questions=False, follow_ups=False)

    def __init__(self, run: Path, device: str = "cpu"):
        self.model, self.tokenizer = load_captioner(run, device)
        self.device = device
        self.begin, self.end = (self.tokenizer.special_tokens[name] for name in (BEGIN_TOKEN, END_TOKEN))
        rows, columns = self.model.config.vision.grid
        self.prompt_tokens = rows * columns + self.model.config.vision.prefix_tokens + 1
        self.context_length = self.prompt_tokens + MAX_CAPTION_TOKENS

    def count_tokens(self, request: GenerationRequest) -> int:
        """Return the number of image tokens plus the begin token.

        Raises UnsupportedRequest unless the request is one image to describe.
        """
        images = [image for message in request.messages for image in message.images]
        if len(images) != 1:
            raise UnsupportedRequest(f"a captioner describes one image per request, but {len(images)} were sent")
        texts = [message.text.strip() for message in request.messages]
        if others := [text for text in texts if text not in ("", PROMPT)]:
            raise UnsupportedRequest(f"a captioner answers no questions; leave out {others[0][:40]!r}")
        return self.prompt_tokens

    def generate(self, requests: Sequence[GenerationRequest]) -> Iterator[list[str | None]]:
        """Caption a batch: yield each row's new text at each step, None once it has ended.

        Raises UnsupportedRequest as `count_tokens` does.
        """
        limits = [min(each.max_new_tokens, self.context_length - self.count_tokens(each)) for each in requests]
        pixels = torch.stack([self._pixels(each) for each in requests]).to(self.device)
        with torch.no_grad():
            prompts = list(self.model.prompts(pixels, self.begin))
        texts = [TextStream(self.tokenizer) for _ in requests]
        sampling = Sampling(
            limits,
            temperature=[float(each.temperature) for each in requests],
            top_p=[each.top_p for each in requests],
            stop_token_ids=(self.end,),
        )
        generators = [seeded_generator(each.seed) for each in requests]
        for token_ids in stream(self.model.language_model, prompts, sampling, generator=generators):
            yield [self._new_text(text, token_id) for text, token_id in zip(texts, token_ids, strict=True)]

    def _new_text(self, text: TextStream, token_id: int | None) -> str | None:
        if token_id is None or token_id == self.end:
            return None
        return text.write(token_id) if token_id < self.tokenizer.vocab_size else ""

    def _pixels(self, request: GenerationRequest) -> UInt8[Tensor, "3 size size"]:
        (image,) = (image for message in request.messages for image in message.images)
        size = self.model.config.vision.image_sides[0]
        fitted = ImageOps.fit(image.convert("RGB"), (size, size), Image.Resampling.LANCZOS)
        return torch.from_numpy(np.array(fitted)).permute(2, 0, 1)
