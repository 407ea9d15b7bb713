"""Vision in one process and language in another: the same answers as in one process, and clear errors."""

import pytest
import torch

from lessons.lesson_10_internvl.model import InternVL, InternVLConfig, VisionConfig
from lessons.lesson_10_internvl.model.deployment import (
    Request,
    answer_in_one_process,
    answer_in_two_processes,
    vision_process,
)
from shared.errors import CourseError
from shared.testing import redraw_weights
from shared.transformer import DecoderConfig, Sampling

IMAGE = 9


def small_model():
    vision = VisionConfig(image_size=8, patch_size=2, channels=3, width=8, depth=1, heads=2, mlp_dim=8)
    language = DecoderConfig(vocab_size=12, width=16, depth=2, heads=2, kv_heads=1, mlp_dim=16, qkv_bias=True)
    model = redraw_weights(InternVL(InternVLConfig(vision, language, image_token_id=IMAGE)))
    model.language_model.embedding.weight.data.mul_(6)
    return model


def requests():
    generator = torch.Generator().manual_seed(0)
    rows = [([1, IMAGE, 2], [1]), ([IMAGE, 3, IMAGE, 4], [3, 1]), ([5, IMAGE], [2]), ([6, IMAGE, 7], [4])]
    return [
        Request(torch.tensor(text), torch.randn(sum(counts), 3, 8, 8, generator=generator), torch.tensor(counts))
        for text, counts in rows
    ]


def test_two_processes_answer_as_one(tmp_path):
    model, sampling = small_model(), Sampling(max_new_tokens=6)
    model.save_pretrained(tmp_path)
    expected = answer_in_one_process(model, requests(), sampling)
    assert len({tuple(answer.tolist()) for answer in expected}) > 1
    # The process of the language model needs no vision encoder.
    language = InternVL.from_pretrained(tmp_path)
    for parameter in language.tile_encoder.parameters():
        parameter.data.fill_(float("nan"))
    with vision_process(tmp_path, ahead=2) as vision:
        for _ in range(2):
            answers = answer_in_two_processes(language, vision, requests(), sampling)
            assert [answer.tolist() for answer in answers] == [answer.tolist() for answer in expected]
        # Requests are encoded before they are needed.
        encoded = vision.encode([request.tiles for request in requests()])
        first = next(encoded)
        with torch.no_grad():
            torch.testing.assert_close(first.embeddings, model.tile_encoder(requests()[0].tiles).embeddings)
        assert [len(each.counts) for each in encoded] == [4, 2, 4]
        with pytest.raises(CourseError, match=r"the vision process failed: .*channels"):
            list(vision.encode([torch.zeros(1, 5, 8, 8)]))
        with pytest.raises(CourseError, match="the vision process has ended"):
            list(vision.encode([torch.zeros(1, 3, 8, 8)]))


def test_a_wrong_folder_is_named(tmp_path):
    with pytest.raises(CourseError, match="the vision process failed: CourseError: "), vision_process(tmp_path):
        pass
    with pytest.raises(ValueError, match="ahead is 0"), vision_process(tmp_path, ahead=0):
        pass
