"""DvD: the vision part in one process, the language model in another (arXiv:2508.18265).

Encoding tiles and generating text have nothing in common but the visual tokens. In one process they alternate; in two
they overlap: while the language model answers a request, the vision process encodes the tiles of the next ones. Pixels
travel to the vision process, and visual tokens travel back.
"""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

import torch
from jaxtyping import Float, Int
from torch import Tensor, multiprocessing

from lessons.lesson_10_internvl.model.internvl import InternVL
from lessons.lesson_10_internvl.model.prompt import Prompt
from lessons.lesson_10_internvl.model.tile_encoder import VisualTokens, expand_images
from shared.errors import CourseError
from shared.transformer import Sampling

START_TIMEOUT = 300.0
"""Seconds within which the vision process must have loaded its model; importing PyTorch takes most of them."""


class Request(NamedTuple):
    """A question of text with one image token per image, the tiles of its images, and the number of tiles of each."""

    token_ids: Int[Tensor, "text"]
    tiles: Float[Tensor, "tiles channels side side_px"]
    counts: Int[Tensor, "images"]


def answer_in_one_process(
    model: InternVL, requests: Sequence[Request], sampling: Sampling
) -> list[Int[Tensor, "new_tokens"]]:
    """Encode and answer one request after the other, the baseline."""
    answers = []
    for request in requests:
        with torch.no_grad():
            visual = model.tile_encoder(request.tiles)
        answers += model.answer([_prompt(model, request, visual)], sampling)
    return answers


def answer_in_two_processes(
    model: InternVL, vision: "VisionProcess", requests: Sequence[Request], sampling: Sampling
) -> list[Int[Tensor, "new_tokens"]]:
    """Answer requests with the visual tokens of another process, which encodes later requests in the meantime.

    model  its tile encoder is not used, and may be without weights

    Raises CourseError when the vision process fails.
    """
    answers = []
    for request, visual in zip(requests, vision.encode([request.tiles for request in requests]), strict=True):
        answers += model.answer([_prompt(model, request, visual)], sampling)
    return answers


def _prompt(model: InternVL, request: Request, visual: VisualTokens) -> Prompt:
    image_token_id = model.config.image_token_id
    token_ids = expand_images(request.token_ids, visual.counts, request.counts, image_token_id)
    with torch.no_grad():
        return model.prompt(token_ids[None], visual.embeddings)


class VisionProcess:
    """A process that encodes tiles with the model of a folder, in the order in which they are sent.

    ahead  how many requests are sent before their visual tokens are needed, which bounds the memory; with 1, nothing
           overlaps
    """

    def __init__(self, tiles: Any, receiver: Any, ahead: int):
        self._tiles, self._receiver, self._ahead = tiles, receiver, ahead

    def encode(self, batches: Sequence[Tensor]) -> Iterator[VisualTokens]:
        """Yield the visual tokens of each batch of tiles, in order. All of them must be taken.

        Raises CourseError when the process fails; its message is that of the failure.
        """
        sent = 0
        for index in range(len(batches)):
            while sent < min(len(batches), index + self._ahead):
                self._tiles.put(batches[sent])
                sent += 1
            embeddings, counts = (torch.from_numpy(part) for part in receive(self._receiver))
            yield VisualTokens(embeddings, counts)


def receive(receiver: Any) -> Any:
    """Return the next object of the vision process. Raises CourseError when it has failed or ended."""
    try:
        result = receiver.recv()
    except EOFError:
        raise CourseError("the vision process has ended; its own output states why") from None
    if isinstance(result, str):
        raise CourseError(f"the vision process failed: {result}")
    return result


@contextmanager
def vision_process(folder: Path | str, *, ahead: int = 2, threads: int = 1) -> Iterator[VisionProcess]:
    """Start a process that loads the tile encoder of a published folder, and end it after the block.

    threads  number of its threads for computing

    Raises ValueError when `ahead` is below 1, and CourseError when the folder holds no such model.
    """
    if ahead < 1:
        raise ValueError(f"ahead is {ahead}; expected at least 1 request")
    context = multiprocessing.get_context("spawn")
    tiles = context.Queue(ahead + 1)
    receiver, sender = context.Pipe(duplex=False)
    process = context.Process(target=_encode_tiles, args=(str(folder), threads, tiles, sender), daemon=True)
    process.start()
    sender.close()
    try:
        if not receiver.poll(START_TIMEOUT):
            raise CourseError(f"the vision process did not start within {START_TIMEOUT:.0f} seconds")
        receive(receiver)
        yield VisionProcess(tiles, receiver, ahead)
    finally:
        process.terminate()
        process.join()
        receiver.close()


def _encode_tiles(folder: str, threads: int, tiles: Any, sender: Any) -> None:
    """Encode batches of tiles until the process is ended: the main function of the vision process."""
    torch.set_num_threads(threads)
    try:
        encoder = InternVL.from_pretrained(folder).tile_encoder
        sender.send(None)
        while True:
            with torch.inference_mode():
                visual = encoder(tiles.get())
            sender.send((visual.embeddings.numpy(), visual.counts.numpy()))
    except Exception as error:
        sender.send(f"{type(error).__name__}: {error}")
