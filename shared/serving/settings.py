"""How much a service takes on: every limit, and nothing else that could be set."""

from dataclasses import dataclass, fields


@dataclass(frozen=True)
class Settings:
    """The limits of a service. What goes beyond one is refused with a status of its own (problems.py).

    body_bytes            of a request, headers not counted
    upload_seconds        for a request's body to arrive
    pixels                width × height of an image, as its header says: refused before anything is decoded
    aspect                how many times longer than wide: what scales the shorter side up would need this factor in memory
    side                  a larger image is reduced to this many pixels on its longer side
    images                in one request
    new_tokens            in one answer; also what an answer may have when a request doesn't say
    concurrent            requests in the house: arriving, waiting, being answered
    waiting               requests in the queue for the model
    rows                  requests answered together, as one batch
    gather_seconds        how long the first of a batch waits for others to join
    seconds               from the end of the upload to the end of the answer
    conversations         remembered; the one not used for longest goes first
    conversation_bytes    of their pictures and words together
    conversation_seconds  after which one that isn't used is forgotten
    caption_prompt        what the model is told, beside the picture, when a caption is asked for

    Raises ValueError when a limit leaves room for nothing.
    """

    body_bytes: int = 10 * 2**20
    upload_seconds: float = 20.0
    pixels: int = 25_000_000
    aspect: int = 100
    side: int = 1024
    images: int = 16
    new_tokens: int = 512
    concurrent: int = 64
    waiting: int = 32
    rows: int = 8
    gather_seconds: float = 0.01
    seconds: float = 60.0
    conversations: int = 1000
    conversation_bytes: int = 256 * 2**20
    conversation_seconds: float = 1800.0
    caption_prompt: str = "Describe the image."

    def __post_init__(self):
        for field in fields(self):
            value = getattr(self, field.name)
            if field.name not in ("gather_seconds", "caption_prompt") and not value > 0:
                raise ValueError(f"{field.name} is {value}: nothing could be answered; it must be above 0")
        if self.gather_seconds < 0:
            raise ValueError(f"gather_seconds is {self.gather_seconds}: it must be 0 or more")
