"""The settings of a service: all of its limits."""

import re
from dataclasses import dataclass, field, fields

from shared.images import MAX_ASPECT_RATIO

TRUNCATIONS = ("disabled", "auto")
API_KEY_VARIABLE = "MULTIMODAL_API_KEY"


@dataclass(frozen=True)
class Settings:
    """Set the limits of a service. A request beyond a limit is refused with that limit's status (errors.py).

    max_body_bytes          of a request, headers not counted
    upload_timeout          seconds for a request's body to arrive
    max_pixels              width × height of an image according to its header, checked before decoding
    max_aspect_ratio        longer side / shorter side of an image; scaling the shorter side up multiplies memory by it
    max_scans               of a JPEG, each of which passes over all pixels; encoders write about ten
    decode_seconds          of processor time to decode an image
    image_side              larger images are reduced to this many pixels on the longer side
    max_images              per request
    max_choices             answers to one request, OpenAI's field `n`
    max_new_tokens          per answer; also the length of an answer whose request names none
    max_concurrent          requests in progress: arriving, waiting or being answered
    max_waiting             requests in the queue for the model
    max_batch_size          requests answered together
    batch_wait              seconds that the first request of a batch waits for others
    answer_timeout          seconds from the end of the upload to the end of the answer
    max_conversations       stored; the least recently used one is removed first
    max_conversation_bytes  of the images and texts of all stored conversations
    conversation_lifetime   seconds without use after which a conversation is removed
    truncation              "auto" leaves out the oldest turns of a conversation that is too long, "disabled" refuses
                            it; a request may choose
    caption_prompt          the user turn that stands beside the image in a request for a caption
    api_key                 every path but /health and the page's files requires it, as `Authorization: Bearer KEY`;
                            None: no path does

    Raises ValueError when a limit allows no request, or the key cannot stand in a header.
    """

    max_body_bytes: int = 10 * 2**20
    upload_timeout: float = 20.0
    max_pixels: int = 25_000_000
    max_aspect_ratio: int = MAX_ASPECT_RATIO
    max_scans: int = 32
    decode_seconds: float = 5.0
    image_side: int = 1024
    max_images: int = 16
    max_choices: int = 8
    max_new_tokens: int = 512
    max_concurrent: int = 64
    max_waiting: int = 32
    max_batch_size: int = 8
    batch_wait: float = 0.01
    answer_timeout: float = 60.0
    max_conversations: int = 1000
    max_conversation_bytes: int = 256 * 2**20
    conversation_lifetime: float = 1800.0
    truncation: str = "disabled"
    caption_prompt: str = "Describe the image."
    api_key: str | None = field(default=None, repr=False)

    def __post_init__(self) -> None:
        for each in fields(self):
            value = getattr(self, each.name)
            if each.type in (int, float) and each.name != "batch_wait" and not value > 0:
                raise ValueError(f"{each.name} is {value}, which allows no request; expected a value above 0")
        if self.batch_wait < 0:
            raise ValueError(f"batch_wait is {self.batch_wait}; expected 0 or more")
        if self.truncation not in TRUNCATIONS:
            raise ValueError(f"truncation is {self.truncation!r}; expected one of {', '.join(TRUNCATIONS)}")
        if self.api_key is not None and not re.fullmatch(r"[!-~]+", self.api_key):
            raise ValueError("the API key is empty or has other characters than visible ASCII ones")
