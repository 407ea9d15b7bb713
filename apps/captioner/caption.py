"""Say what pictures show, with a captioner that train.py has left.

python -m apps.captioner.caption RUN PICTURE [PICTURE …] [--temperature 0.7 --top-p 0.9]
"""

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch

from apps.captioner.measure import written
from apps.captioner.model import GREEDY
from apps.captioner.run_folder import load_captioner
from data.datasets.image_folder import read_image
from shared.cli import command_line
from shared.errors import CourseError
from shared.transformer import Sampling


def caption_files(
    run: Path | str,
    files: Sequence[Path | str],
    *,
    device: str = "cpu",
    sampling: Sampling = GREEDY,
    generator: torch.Generator | None = None,
) -> list[str]:
    """A caption for each picture file. Raises CourseError when there is no captioner, or a picture can't be read."""
    model, tokenizer = load_captioner(run)
    size = model.config.eye.image_sides[0]
    pixels = torch.from_numpy(np.stack([read_image(Path(file), size) for file in files])).permute(0, 3, 1, 2)
    return written(model.to(device), tokenizer, pixels, sampling=sampling, generator=generator)


@command_line()
def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("run", type=Path, help="a folder that train.py has left")
    parser.add_argument("pictures", type=Path, nargs="+")
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--max-new-tokens", type=int, default=64)
    parser.add_argument("--temperature", type=float, default=0.0, help="0 takes the likeliest words")
    parser.add_argument(
        "--top-p", type=float, help="sample among the likeliest words that together reach this probability"
    )
    parser.add_argument("--seed", type=int, default=0, help="of the sampling")
    asked = vars(parser.parse_args())
    pictures, run = asked.pop("pictures"), asked.pop("run")
    try:
        generator = torch.Generator().manual_seed(asked.pop("seed"))
        sampling = Sampling(asked["max_new_tokens"], temperature=asked["temperature"], top_p=asked["top_p"])
        captions = caption_files(run, pictures, device=asked["device"], sampling=sampling, generator=generator)
        for picture, caption in zip(pictures, captions, strict=True):
            print(f"{picture}\t{caption}")
    except ValueError as error:
        raise CourseError(str(error)) from error
    return 0


if __name__ == "__main__":
    sys.exit(main())
