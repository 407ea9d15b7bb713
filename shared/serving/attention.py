"""POST /attention: where the model attends in the images of a conversation while it generates an answer."""

from typing import Annotated

import numpy as np
from pydantic import Field, StringConstraints
from starlette.responses import Response

from shared.serving.answers import AnswerService
from shared.serving.chat_completions import read_messages
from shared.serving.errors import AsciiJSONResponse, ServiceError
from shared.serving.model_card import AttentiveModel
from shared.serving.schemas import MAX_MESSAGES, Body, ChatMessage, SamplingFields
from shared.serving.served_model import UnsupportedRequest

MAX_ANSWER_CHARACTERS = 65_536
DIGITS = 6
NO_SAMPLING = SamplingFields.model_validate({})


class AttentionBody(Body):
    """POST /attention: a conversation as in a chat completion, and the answer that the model gave to it."""

    messages: Annotated[list[ChatMessage], Field(min_length=1, max_length=MAX_MESSAGES, fail_fast=True)]
    answer: Annotated[str, StringConstraints(min_length=1, max_length=MAX_ANSWER_CHARACTERS)]


async def attend(body: AttentionBody, answers: AnswerService) -> Response:
    """Answer POST /attention: one map per image and token of the answer. The values are fractions of the attention.

    Raises ServiceError refused for a model without such maps, model_failed, and as a chat completion does.
    """
    model = answers.model
    if not isinstance(model, AttentiveModel):
        raise ServiceError("refused", f"{answers.model.name} does not report where it attends")
    prepared = await answers.prepare(await read_messages(body.messages, answers), NO_SAMPLING, None)
    try:
        attention = await answers.threads.run(lambda: model.image_attention(prepared.request, body.answer))
    except UnsupportedRequest as error:
        raise ServiceError("refused", str(error)) from None
    except Exception as error:
        raise ServiceError("model_failed", "the model could not process this request") from error
    images = [
        {"region": region, "weights": np.round(weights.astype(float), DIGITS).tolist()}
        for region, weights in zip(attention.regions, attention.weights, strict=True)
    ]
    return AsciiJSONResponse({"tokens": attention.tokens, "images": images})
