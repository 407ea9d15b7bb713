"""Documents of images and text become rows of tokens; few-shot prompts; the loss mask of text."""

import pytest
import torch

from lessons.lesson_04_flamingo.model import few_shot_prompt, interleave, text_token_mask
from shared.tokenizers import Tokenizer

IMAGE = 30


@pytest.fixture(scope="module")
def tokenizer():
    return Tokenizer.train(["red dax. blue fep. a b c d"] * 3, 270, special_tokens=("<|begin|>", "<image>"))


def test_documents_become_rows(tokenizer):
    documents = [["red", 7, " dax.", 3, " fep."], [5], ["a b"]]
    batch = interleave(documents, tokenizer, begin="<|begin|>", image="<image>")
    begin, image = tokenizer.special_tokens["<|begin|>"], tokenizer.special_tokens["<image>"]
    red, dax, fep = (tokenizer.encode(text) for text in ("red", " dax.", " fep."))
    first = [begin, *red, image, *dax, image, *fep]
    assert batch.token_ids[0].tolist() == first
    assert batch.image_index[0].tolist() == [-1] * (1 + len(red)) + [0] * (1 + len(dax)) + [1] * (1 + len(fep))
    assert batch.token_ids[1, :2].tolist() == [begin, image] and (batch.segments[1, 2:] == -1).all()
    assert batch.images.tolist() == [[7, 3], [5, -1], [-1, -1]]
    assert (batch.image_index[2] == -1).all()


def test_documents_share_rows_while_they_fit(tokenizer):
    documents = [["a", 1], [2, "b"], ["c", 3, "d", 4]]
    batch = interleave(documents, tokenizer, begin="<|begin|>", image="<image>", length=7)
    assert batch.segments.tolist() == [[0, 0, 0, 1, 1, 1, -1], [0, 0, 0, 0, 0, -1, -1]]
    assert batch.images.tolist() == [[1, 2], [3, 4]]
    assert batch.image_index.tolist() == [[-1, -1, 0, -1, 1, 1, -1], [-1, -1, 0, 0, 1, -1, -1]]
    with pytest.raises(ValueError, match="a document of 5 tokens does not fit into rows of 4"):
        interleave(documents, tokenizer, begin="<|begin|>", image="<image>", length=4)


def test_a_few_shot_prompt_is_examples_and_a_query_image(tokenizer):
    assert few_shot_prompt([(4, " dax."), (9, " fep.")], 2) == [4, " dax.", 9, " fep.", 2]
    assert few_shot_prompt([], 2, "what is it? ") == ["what is it? ", 2]


def test_the_text_token_mask_leaves_out_images_first_tokens_and_padding():
    tokens = torch.tensor([[1, IMAGE, 5, 1, 6, IMAGE, 0]])
    segments = torch.tensor([[0, 0, 0, 1, 1, 1, -1]])
    assert text_token_mask(tokens, segments, IMAGE).tolist() == [[False, False, True, False, True, False, False]]
