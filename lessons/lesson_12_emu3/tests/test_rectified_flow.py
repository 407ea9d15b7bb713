"""Rectified flow and the asymmetric video transformer: exact lines, invariances, learning."""

import pytest
import torch

from lessons.lesson_12_emu3.model.rectified_flow import flow_loss, guided_velocity, sample_flow
from lessons.lesson_12_emu3.model.video_transformer import VideoTransformer, VideoTransformerConfig
from shared.testing import redraw_weights

CONFIG = VideoTransformerConfig(channels=3, vocab_size=11, width=24, text_width=12, depth=2, heads=2, head_dim=12)


def small_transformer():
    torch.manual_seed(0)
    return redraw_weights(VideoTransformer(CONFIG))


def inputs(batch=2):
    generator = torch.Generator().manual_seed(0)
    latents = torch.randn(batch, 3, 2, 3, 4, generator=generator)
    captions, segments = torch.randint(11, (batch, 4), generator=generator), torch.zeros(batch, 4, dtype=torch.long)
    segments[0, 2:] = -1
    return latents, torch.linspace(0.2, 0.9, batch), captions, segments


def test_one_step_is_exact_along_a_straight_line():
    data, noise = torch.randn(3, 2, 4), torch.randn(3, 2, 4)
    for steps in (1, 7):
        torch.testing.assert_close(sample_flow(lambda x, times: noise - data, noise, steps), data)
    with pytest.raises(ValueError, match="0 steps; expected at least 1"):
        sample_flow(lambda x, times: x, noise, 0)


def test_more_steps_follow_a_curve_more_closely():
    """For data that is 0 and noise of variance 1, the velocity at x is x / t: one step is exact; for x it is not."""
    noise = torch.ones(1, 1)
    errors = [abs(sample_flow(lambda x, times: x, noise, steps).item() - 1 / torch.e) for steps in (2, 8, 64)]
    assert errors[0] > errors[1] > errors[2] and errors[2] < 0.005


def test_the_loss_of_the_true_velocity_is_the_variance_of_its_target():
    data = torch.zeros(20_000, 1)
    exact = flow_loss(lambda x, times: x / times[:, None], data, torch.Generator().manual_seed(0))
    none = flow_loss(lambda x, times: 0 * x, data, torch.Generator().manual_seed(0))
    assert exact < 1e-6 and none.item() == pytest.approx(1, abs=0.05)


def test_guidance_of_velocities():
    x, times = torch.randn(2, 3), torch.rand(2)
    velocity = guided_velocity(lambda x, times: 2 * x, lambda x, times: x + 1, 3.0)
    torch.testing.assert_close(velocity(x, times), x + 1 + 3 * (x - 1))


@torch.no_grad()
def test_padding_of_a_caption_and_other_rows_change_nothing():
    model = small_transformer()
    latents, times, captions, segments = inputs()
    velocity = model(latents, times, captions, segments)
    changed = captions.clone()
    changed[0, 2:] = (changed[0, 2:] + 1) % 11
    torch.testing.assert_close(model(latents, times, changed, segments), velocity)
    alone = model(latents[:1], times[:1], captions[:1, :2], segments[:1, :2])
    torch.testing.assert_close(alone, velocity[:1])
    # What does change it: the caption, the time, and any place of the latents.
    changed[0, 0] = (captions[0, 0] + 1) % 11
    assert (model(latents, times, changed, segments) - velocity)[0].abs().max() > 1e-3
    assert (model(latents, 1 - times, captions, segments) - velocity).abs().max() > 1e-3
    moved = latents.clone()
    moved[:, :, 1, 2, 3] += 1
    assert (model(moved, times, captions, segments) - velocity)[:, :, 0, 0, 0].abs().max() > 1e-4


@torch.no_grad()
def test_places_in_time_and_space_are_told_apart():
    model = small_transformer()
    latents, times, captions, segments = inputs()
    velocity = model(latents, times, captions, segments)
    for axis in (2, 3, 4):
        flipped = model(latents.flip(axis), times, captions, segments).flip(axis)
        assert (flipped - velocity).abs().max() > 1e-3, axis


def test_vision_has_most_of_the_parameters():
    block = VideoTransformer(VideoTransformerConfig(3, 11)).blocks[0]
    vision, text = (sum(p.numel() for p in stream.parameters()) for stream in (block.vision, block.text))
    assert vision > 2.5 * text
    with pytest.raises(ValueError, match="expected a multiple of 6"):
        VideoTransformerConfig(3, 11, head_dim=16)
    with pytest.raises(ValueError, match="not wider than the vision stream"):
        VideoTransformerConfig(3, 11, width=16, text_width=32)


def test_a_short_training_learns_what_the_caption_says():
    """Caption 1 stands for latents of +1, caption 2 for −1."""
    torch.manual_seed(0)
    model = VideoTransformer(CONFIG)
    captions = torch.tensor([[1], [2]]).repeat(8, 1)
    segments = torch.zeros_like(captions)
    data = torch.where(captions == 1, 1.0, -1.0).reshape(-1, 1, 1, 1, 1).expand(-1, 3, 2, 2, 2)
    optimizer = torch.optim.Adam(model.parameters(), 5e-3)
    for _ in range(80):
        loss = flow_loss(lambda x, times: model(x, times, captions, segments), data)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    noise = torch.randn(16, 3, 2, 2, 2)
    sampled = sample_flow(lambda x, times: model(x, times, captions, segments), noise, 8)
    assert (sampled.sign() == data.sign()).float().mean() > 0.9
