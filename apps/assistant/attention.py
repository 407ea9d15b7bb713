"""Where an assistant attends in an image while it generates an answer, for the page of the service.

The fused kernels of generation store no attention weights, so they are computed again for the finished conversation.
The values are those of generation, as long as the tokenizer splits the answer into the tokens that were generated.
"""

from collections.abc import Sequence

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from lessons.lesson_02_clip.model.preprocessing import ImagePreprocessing
from lessons.lesson_05_llava.model import Llava
from shared.serving import UnsupportedRequest
from shared.tokenizers import TextStream, Tokenizer
from shared.transformer import mean_attention

Region = tuple[float, float, float, float]


def patch_grid(model: Llava, image_tokens: int) -> tuple[int, int, int]:
    """Return the rows and columns of an image's patch tokens, and the number of tokens before them.

    Raises UnsupportedRequest when the language model does not receive one token per patch.
    """
    config = model.vision_encoder.config
    rows, columns = config.grid
    prefix_tokens = config.prefix_tokens if model.keep_class_token else 0
    if image_tokens != prefix_tokens + rows * columns:
        raise UnsupportedRequest(
            f"this model receives an image as {image_tokens} tokens, not as one per patch, so there is no map"
        )
    return rows, columns, prefix_tokens


def patch_attention(
    model: Llava, token_ids: Sequence[int], embeddings: Float[Tensor, "tokens width"], prompt_tokens: int
) -> Float[np.ndarray, "answer_tokens image_tokens"]:
    """Return how each answer token's prediction attends to all image tokens, averaged over layers and heads.

    token_ids      of the prompt and the answer; the first `prompt_tokens` are the prompt
    """
    attention = mean_attention(model.language_model, embeddings, first_query=prompt_tokens - 1)
    is_image = torch.tensor(token_ids, device=attention.device) == model.image_token_id
    # The last token predicts the end of the turn.
    return attention[:-1, is_image].float().cpu().numpy()


def image_maps(
    weights: Float[np.ndarray, "answer_tokens image_tokens"], grid: tuple[int, int, int]
) -> tuple[Float[np.ndarray, "answer_tokens rows columns"], ...]:
    """Split the attention to all image tokens into a map per image, without the tokens that are no patches."""
    rows, columns, prefix_tokens = grid
    per_image = weights.reshape(len(weights), -1, prefix_tokens + rows * columns)
    maps = per_image[:, :, prefix_tokens:].reshape(len(weights), -1, rows, columns)
    return tuple(maps.swapaxes(0, 1))


def visible_region(preprocessing: ImagePreprocessing, width: int, height: int) -> Region:
    """Return the part of an image that the model receives: left, top, right and bottom in [0, 1]."""
    if not preprocessing.crop:
        return (0.0, 0.0, 1.0, 1.0)
    shorter = min(width, height)
    left, top = (width - shorter) / (2 * width), (height - shorter) / (2 * height)
    return (left, top, 1 - left, 1 - top)


def answer_texts(tokenizer: Tokenizer, token_ids: Sequence[int]) -> tuple[str, ...]:
    """Return the text that each token adds to the answer; a token inside a character adds none."""
    stream = TextStream(tokenizer)
    texts = [stream.write(token_id) for token_id in token_ids]
    texts[-1] += stream.close()
    return tuple(texts)
