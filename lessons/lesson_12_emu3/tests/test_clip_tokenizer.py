"""The tokenizer of clips: causality, images as clips of one frame, learning, files."""

import pytest
import torch

from lessons.lesson_12_emu3.model.clip_tokenizer import ClipTokenizer, ClipTokenizerConfig
from shared.errors import CourseError
from shared.testing import redraw_weights, rewrite_config

SMALL = {"codebook_size": 16, "image_size": 8, "stages": 1, "width": 8, "features": 8, "code_width": 4}


def small_tokenizer(**changes):
    torch.manual_seed(0)
    return redraw_weights(ClipTokenizer(ClipTokenizerConfig(**SMALL | changes)), buffers=True)


def clips(count=2, frames=9, size=8):
    return torch.rand(count, frames, 3, size, size)


@pytest.mark.parametrize(("stages", "frames", "grids"), [(0, 3, 3), (1, 5, 3), (2, 1, 1), (2, 9, 3), (3, 9, 2)])
def test_shapes(stages, frames, grids):
    tokenizer = small_tokenizer(temporal_stages=stages)
    codes = tokenizer.encode(clips(frames=frames))
    assert codes.shape == (2, grids, 4, 4) and tokenizer.config.code_frames(frames) == grids
    decoded = tokenizer.decode(codes)
    assert decoded.shape == (2, frames, 3, 8, 8) and decoded.min() >= 0 and decoded.max() <= 1
    trained = tokenizer.train()(clips(frames=frames))
    assert trained.clips.shape == (2, frames, 3, 8, 8) and trained.codes.shape == codes.shape


def first_difference(one, other):
    different = (one != other).flatten(2).any(-1).any(0).tolist()
    return different.index(True) if any(different) else None


@torch.no_grad()
def test_no_grid_depends_on_later_frames_and_no_frame_on_later_grids():
    tokenizer = small_tokenizer(temporal_stages=2)
    videos = clips(frames=13)
    maps = tokenizer._maps(videos).unflatten(0, (2, 4))
    for changed in range(13):
        other = videos.clone()
        other[:, changed] = 1 - other[:, changed]
        assert first_difference(maps, tokenizer._maps(other).unflatten(0, (2, 4))) == (changed + 3) // 4
    quantized = torch.randn(8, 4, 4, 4)
    pixels = tokenizer._pixels(quantized, 2)
    for changed in range(4):
        other = quantized.clone()
        other.unflatten(0, (2, 4))[:, changed] += 1
        assert first_difference(pixels, tokenizer._pixels(other, 2)) == max(0, 4 * changed - 3)


def test_an_image_is_a_clip_of_one_frame():
    tokenizer = small_tokenizer(temporal_stages=2)
    videos = clips(frames=9)
    codes = tokenizer.encode(videos)
    assert torch.equal(tokenizer.encode(videos[:, :1]), codes[:, :1])
    torch.testing.assert_close(tokenizer.decode(codes[:, :1]), tokenizer.decode(codes)[:, :1])
    assert tokenizer.quantizer.codebook_size == 16  # one codebook for both


def test_a_short_training_reconstructs_moving_squares():
    torch.manual_seed(0)
    sizes = {"codebook_size": 32, "width": 16, "features": 16, "temporal_stages": 1}
    tokenizer = ClipTokenizer(ClipTokenizerConfig(**SMALL | sizes))
    videos = torch.zeros(4, 3, 3, 8, 8)
    for clip in range(4):
        for frame in range(3):
            videos[clip, frame, clip % 3, clip : clip + 3, 2 * frame : 2 * frame + 3] = 1
    optimizer = torch.optim.Adam(tokenizer.parameters(), 2e-3)
    for _ in range(200):
        result = tokenizer(videos)
        loss = (result.clips - videos).square().mean() + result.loss
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    tokenizer.eval()
    with torch.no_grad():
        error = (tokenizer.decode(tokenizer.encode(videos)) - videos).square().mean()
    assert error < 0.5 * (videos - videos.mean((0, 1), keepdim=True)).square().mean()


def test_files(tmp_path):
    tokenizer = small_tokenizer(temporal_stages=1)
    tokenizer.save_pretrained(tmp_path)
    again = ClipTokenizer.from_pretrained(tmp_path)
    assert again.config == tokenizer.config and not again.training
    videos = clips(frames=3)
    assert torch.equal(again.encode(videos), tokenizer.encode(videos))
    rewrite_config(tmp_path, lambda config: config.update(features=12))
    with pytest.raises(CourseError, match="features is 12"):
        ClipTokenizer.from_pretrained(tmp_path)


def test_wrong_clips_codes_and_settings():
    tokenizer = small_tokenizer(temporal_stages=2)
    for frames in (0, 2, 4):
        with pytest.raises(ValueError, match=f"a clip has {frames} frames; expected 1, or 1 and a multiple of 4 more"):
            tokenizer.encode(clips(frames=frames))
    with pytest.raises(ValueError, match="pixels lie between"):
        tokenizer.encode(clips() * 255)
    with pytest.raises(ValueError, match=r"expected \[batch, grids, 4, 4\]"):
        tokenizer.decode(torch.zeros(1, 1, 2, 2, dtype=torch.long))
    with pytest.raises(ValueError, match="the codes 0 to 15"):
        tokenizer.decode(torch.full((1, 1, 4, 4), 16))
    for changes in ({"features": 12}, {"temporal_stages": -1}, {"image_size": 9}):
        with pytest.raises(ValueError):
            ClipTokenizerConfig(**SMALL | changes)
