"""One sequence of text, images and videos, and the conversations of the toy world's tokenizer."""

import pytest
import torch

from lessons.lesson_08_onevision.model import (
    ImageInput,
    PlaceholderIds,
    VideoInput,
    VideoPlan,
    VisualLayout,
    build_sequence,
    encode_visual_conversation,
    visual_token_counts,
)
from lessons.lesson_08_onevision.model.sequence import expand_placeholders
from lessons.lesson_08_onevision.model.tiling import grid_pinpoints
from shared.tokenizers import ChatTemplate, Tokenizer
from shared.tokenizers.special_tokens import SPECIAL_TOKENS

LAYOUT = VisualLayout(8, 2, grid_pinpoints(8, 2), 9)
IDS = PlaceholderIds(90, 91)


def test_a_single_image_has_tiles_and_several_have_none():
    assert visual_token_counts([ImageInput((16, 16))], LAYOUT) == [4 + 4 * 5]
    assert visual_token_counts([ImageInput((16, 16))] * 3, LAYOUT) == [5, 5, 5]
    assert visual_token_counts([VideoInput(6)], LAYOUT) == [6 * 1 + 1]
    # A video next to an image does not change how the image is encoded.
    assert visual_token_counts([ImageInput((16, 16)), VideoInput(2)], LAYOUT) == [24, 3]
    assert visual_token_counts([], LAYOUT) == []


def test_text_images_and_videos_in_any_order():
    sequence = build_sequence([[5], ImageInput((3, 9)), [6, 7], VideoInput(2), ImageInput((4, 4))], LAYOUT, IDS)
    assert sequence.token_ids.tolist() == [5, *[90] * 5, 6, 7, *[91] * 3, *[90] * 5]
    assert sequence.visuals == (ImageInput((3, 9)), VideoInput(2), ImageInput((4, 4)))
    assert build_sequence([[5, 6]], LAYOUT, IDS).token_ids.tolist() == [5, 6]
    assert build_sequence([], LAYOUT, IDS).token_ids.tolist() == []


def test_plans_replace_the_published_counts():
    sequence = build_sequence([[5], VideoInput(9)], LAYOUT, IDS, [VideoPlan(4, 1, 5)])
    assert sequence.token_ids.tolist() == [5, *[91] * 5]
    with pytest.raises(ValueError, match="2 plans for 1 images and videos"):
        build_sequence([VideoInput(9)], LAYOUT, IDS, [VideoPlan(4, 1, 5)] * 2)


@pytest.mark.parametrize(
    ("part", "message"),
    [
        (ImageInput((0, 4)), r"an image of \(0, 4\)"),
        (VideoInput(0), "a video of 0 frames"),
        ([5, 90], "the text has 2 placeholders for 1 images and videos"),
    ],
)
def test_impossible_parts_are_named(part, message):
    with pytest.raises(ValueError, match=message):
        build_sequence([part, VideoInput(1)], LAYOUT, IDS)


def test_too_few_placeholders_are_named():
    with pytest.raises(ValueError, match="1 placeholders for 2 images"):
        expand_placeholders(torch.tensor([90, 5]), [3, 3], IDS)


def test_ten_thousand_frames_are_only_long():
    assert len(build_sequence([VideoInput(10_000)], LAYOUT, IDS).token_ids) == 10_001


def test_a_conversation_about_images_and_videos():
    tokenizer = Tokenizer.train(["what moves? a star"] * 3, 300, special_tokens=SPECIAL_TOKENS)
    template, image = ChatTemplate(tokenizer), tokenizer.special_tokens["<image>"]
    encoded = encode_visual_conversation(
        template, "what moves?", "a star", visuals=[VideoInput(3), ImageInput((16, 16))], layout=LAYOUT
    )
    assert encoded.token_ids.count(image) == 4 + 24
    reply = [token for token, in_loss in zip(encoded.token_ids, encoded.loss_mask, strict=True) if in_loss]
    assert tokenizer.decode(reply).startswith("a star") and image not in reply
    open_ended = encode_visual_conversation(template, "what moves?", visuals=[VideoInput(3)], layout=LAYOUT)
    assert open_ended.token_ids.count(image) == 4 and not any(open_ended.loss_mask)
