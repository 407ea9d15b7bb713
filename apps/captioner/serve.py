"""Put a captioner behind an address that programs can ask (shared/serving).

python -m apps.captioner.serve RUN [--port 8000] [--host 127.0.0.1] [--device cpu]
curl -F image=@dog.jpg http://127.0.0.1:8000/caption
"""

import argparse
import os
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
import torch
from PIL import Image, ImageOps

from apps.captioner.run_folder import load_captioner, read_record
from shared.cli import command_line
from shared.serving.serve import serve
from shared.serving.served_model import GenerationRequest, UnsupportedRequest
from shared.serving.settings import Settings
from shared.tokenizers import TextStream
from shared.transformer.generation import Sampling, stream

PROMPT = Settings.caption_prompt
LONGEST_CAPTION = 128


class ServedCaptioner:
    """A captioner as a service sees it: one picture in, its caption out, and no talk."""

    name = "captioner"

    def __init__(self, run: Path, device: str = "cpu"):
        model, self.tokenizer = load_captioner(run)
        self.model, self.device = model.to(device), device
        self.begin, self.end = (self.tokenizer.special_tokens[name] for name in (BEGIN_TOKEN, END_TOKEN))
        rows, columns = model.config.eye.grid
        self.before = rows * columns + model.eye.prefix_tokens + 1
        self.context_length = self.before + LONGEST_CAPTION

    def count_tokens(self, request: GenerationRequest) -> int:
        """Image tokens, and the one that begins a text. Raises UnsupportedRequest for anything but one picture to be described."""
        pictures = [image for message in request.messages for image in message.images]
        if len(pictures) != 1:
            raise UnsupportedRequest(f"a captioner describes one picture at a time, and {len(pictures)} were given")
        said = [message.text.strip() for message in request.messages]
        if others := [text for text in said if text not in ("", PROMPT)]:
            raise UnsupportedRequest(
                f"a captioner describes pictures and answers nothing: leave out {others[0][:40]!r}"
            )
        return self.before

    def generate(self, requests: Sequence[GenerationRequest]) -> Iterator[list[str | None]]:
        """Captions of a batch, a token a step: what each row says newly, None once it has ended. Raises UnsupportedRequest as `count`."""
        limits = [min(each.max_new_tokens, self.context_length - self.count_tokens(each)) for each in requests]
        pixels = torch.stack([self._pixels(each) for each in requests]).to(self.device)
        with torch.no_grad():
            prompts = list(self.model.prompts(pixels, self.begin))
        texts = [TextStream(self.tokenizer) for _ in requests]
        steps = stream(
            self.model.language,
            prompts,
            Sampling(
                max_new_tokens=limits,
                temperature=[float(each.temperature) for each in requests],
                top_p=[each.top_p for each in requests],
                stop_token_ids=(self.end,),
            ),
            generator=[_generator(each.seed) for each in requests],
        )
        for tokens in steps:
            yield [self._piece(text, token) for text, token in zip(texts, tokens, strict=True)]

    def _piece(self, text: TextStream, token: int | None) -> str | None:
        if token is None or token == self.end:
            return None
        return text.write(token) if token < self.tokenizer.vocab_size else ""

    def _pixels(self, request: GenerationRequest) -> torch.Tensor:
        (picture,) = (image for message in request.messages for image in message.images)
        size = self.model.config.eye.image_sides[0]
        fitted = ImageOps.fit(picture.convert("RGB"), (size, size), Image.Resampling.LANCZOS)
        return torch.from_numpy(np.array(fitted)).permute(2, 0, 1)


def _generator(seed: int | None) -> torch.Generator:
    generator = torch.Generator()
    if seed is None:
        generator.seed()
    else:
        generator.manual_seed(seed % 2**63)
    return generator


@command_line()
def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("run", type=Path, help="a folder that train.py has left")
    parser.add_argument("--port", type=int, default=8000)
    parser.add_argument("--host", default="127.0.0.1", help="0.0.0.0 lets in everyone, not this machine alone")
    parser.add_argument("--device", default="cpu")
    asked = parser.parse_args()
    torch.set_num_threads(int(os.environ.get("OMP_NUM_THREADS") or 1))
    read_record(asked.run)
    settings = Settings(caption_prompt=PROMPT, max_new_tokens=64)
    serve(lambda: ServedCaptioner(asked.run, asked.device), host=asked.host, port=asked.port, settings=settings)
    return 0


if __name__ == "__main__":
    sys.exit(main())
