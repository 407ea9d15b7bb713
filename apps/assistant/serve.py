"""Put an assistant behind an address that programs can ask (shared/serving).

    python -m apps.assistant.serve [FOLDER] [--port 8000] [--host 127.0.0.1] [--device cpu]

FOLDER is what training wrote; left out, it is lesson 5's checkpoint, which lies in the repository.
"""

import argparse
import os
import sys
from collections.abc import Sequence
from pathlib import Path

import torch

from apps.assistant.assistant import Assistant
from apps.assistant.evaluate import model_in
from apps.assistant.files import habits_of
from shared.cli import command_line
from shared.course.checkpoint import CHECKPOINTS_FOLDER
from shared.errors import CourseError
from shared.serving.serve import serve
from shared.serving.settings import Settings

CHECKPOINT = CHECKPOINTS_FOLDER / "lesson_05_llava"
LAST_TRAINED = Path("runs/assistant/debug")


def chosen(folder: Path | None) -> Path:
    """The folder of the model that is meant. Raises CourseError when there is none."""
    for candidate in (CHECKPOINT, LAST_TRAINED) if folder is None else (folder,):
        if (model_in(candidate) / "config.json").exists():
            return model_in(candidate)
    if folder is not None:
        raise CourseError(f"{folder} holds no assistant; expected what training wrote, with its config.json")
    raise CourseError(
        f"neither {CHECKPOINT} nor {LAST_TRAINED} holds an assistant; make the first (make checkpoint-5), train the "
        "second (python -m apps.assistant.train --debug), or name a folder"
    )


@command_line()
def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(
        prog="serve", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("folder", type=Path, nargs="?")
    parser.add_argument("--port", type=int, default=8000)
    parser.add_argument("--host", default="127.0.0.1", help="0.0.0.0 lets in everyone, not this machine alone")
    parser.add_argument("--device", default="cpu")
    asked = parser.parse_args(arguments)
    torch.set_num_threads(int(os.environ.get("OMP_NUM_THREADS") or 1))
    folder = chosen(asked.folder)
    settings = Settings(caption_prompt=habits_of(folder).caption_prompt)
    print(f"{folder}", file=sys.stderr, flush=True)
    serve(
        lambda: Assistant.from_folder(folder, device=asked.device),
        host=asked.host,
        port=asked.port,
        settings=settings,
    )
    return 0


if __name__ == "__main__":
    sys.exit(main())
