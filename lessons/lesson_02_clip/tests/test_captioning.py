"""The captioning loss: its decoder, its batches, and the probes that measure what it changes."""

import pytest
import torch
from torch.nn import functional as F

from data.toybox.heldout import mentions_held_out, sample_scenes
from lessons.lesson_02_clip.experiment.data import CaptionedScenes, toy_tokenizer
from lessons.lesson_02_clip.experiment.described_scenes import DescribedScenes, encode_text
from lessons.lesson_02_clip.experiment.probes import fit_probe, object_patches, probe_patches
from lessons.lesson_02_clip.experiment.train import captioned_loss, small_clip, small_decoder
from lessons.lesson_02_clip.model.caption_decoder import (
    CaptionDecoder,
    CaptionDecoderConfig,
    CaptioningCLIP,
    captioning_loss,
    positions_in_segments,
)

CONFIG = CaptionDecoderConfig(20, 8, image_width=6, width=16, depth=2, heads=2, mlp_dim=32)


@pytest.fixture(scope="module")
def batches():
    scenes = sample_scenes("train", 0, 60, (1, 5))
    captions = CaptionedScenes.from_scenes(scenes, batch_size=8, seed=0)
    return DescribedScenes(scenes, captions, regions=3)


@pytest.fixture
def decoder():
    torch.manual_seed(0)
    return CaptionDecoder(CONFIG).double()


def test_positions_restart_with_every_text():
    segments = torch.tensor([[0, 0, 0, 1, 1, 2, -1, -1]])
    assert positions_in_segments(segments).tolist() == [[0, 1, 2, 0, 1, 0, 0, 1]]


def test_texts_of_one_row_are_independent_and_causal(decoder):
    patches = torch.randn(1, 4, 6).double()
    first, second = torch.tensor([[1, 2, 3]]), torch.tensor([[4, 5, 6, 7]])
    together = decoder(patches, torch.cat([first, second], 1), torch.tensor([[0, 0, 0, 1, 1, 1, 1]]))
    alone = decoder(patches, second, torch.zeros(1, 4, dtype=torch.long))
    torch.testing.assert_close(together[:, 3:], alone)
    changed = decoder(patches, torch.tensor([[4, 5, 6, 8]]), torch.zeros(1, 4, dtype=torch.long))
    torch.testing.assert_close(changed[:, :3], alone[:, :3])
    assert not torch.allclose(changed[:, 3], alone[:, 3])


def test_every_token_reads_every_patch(decoder):
    patches = torch.randn(1, 4, 6).double().requires_grad_()
    logits = decoder(patches, torch.tensor([[1, 2, 3]]), torch.zeros(1, 3, dtype=torch.long))
    for token in range(3):
        (gradient,) = torch.autograd.grad(logits[0, token, 5], patches, retain_graph=True)
        assert (gradient.abs().sum(dim=-1) > 1e-8).all()


def test_the_loss_is_the_mean_over_the_masked_tokens():
    torch.manual_seed(0)
    logits, token_ids = torch.randn(1, 6, 20), torch.randint(20, (1, 6))
    segments = torch.tensor([[0, 0, 0, 1, 1, -1]])
    loss_mask = torch.tensor([[True, True, True, True, True, True]])
    # Positions 1, 2 and 4 have an earlier token in their text; 0 and 3 begin one; 5 is padding.
    expected = torch.stack([F.cross_entropy(logits[0, i - 1], token_ids[0, i]) for i in (1, 2, 4)]).mean()
    torch.testing.assert_close(captioning_loss(logits, token_ids, segments, loss_mask), expected)
    loss_mask[0, 1] = False
    expected = torch.stack([F.cross_entropy(logits[0, i - 1], token_ids[0, i]) for i in (2, 4)]).mean()
    torch.testing.assert_close(captioning_loss(logits, token_ids, segments, loss_mask), expected)


def test_batches_hold_the_caption_and_descriptions_without_their_places(batches):
    batch, tokenizer = batches(0), toy_tokenizer()
    assert all(torch.equal(first, again) for first, again in zip(batch, batches(0), strict=True))
    for token_ids, segments, loss_mask in zip(batch.text_ids, batch.segments, batch.loss_mask, strict=True):
        assert set(segments.tolist()) - {-1} == {0, 1, 2, 3}
        for segment in range(1, 4):
            text = tokenizer.decode(token_ids[segments == segment].tolist())
            predicted = tokenizer.decode(token_ids[(segments == segment) & loss_mask].tolist())
            assert text.split(":")[0].count("row") == 1 and "row" not in predicted
            assert predicted.strip() and text.endswith(predicted)
            assert not mentions_held_out(text)
        assert loss_mask[segments == 0].all() and not loss_mask[segments == -1].any()


def test_a_text_is_encoded_from_its_start_to_its_end():
    tokenizer, token_ids = toy_tokenizer(), encode_text("a red circle")
    assert token_ids[0] == tokenizer.start and token_ids[-1] == tokenizer.end and len(token_ids) == 5


def test_image_vectors_are_those_of_clip_and_both_losses_train(batches):
    torch.manual_seed(0)
    clip = small_clip(width=32, depth=2)
    model = CaptioningCLIP(clip, small_decoder(clip))
    batch = batches(0)
    vectors, logits = model(batch.pixels, batch.text_ids, batch.segments)
    torch.testing.assert_close(vectors, clip.encode_images(batch.pixels))
    assert logits.shape == (*batch.text_ids.shape, len(toy_tokenizer().vocab))
    optimizer, totals = torch.optim.AdamW(model.parameters(), lr=2e-3), []
    for _ in range(12):
        loss, parts = captioned_loss(model, batch)
        torch.testing.assert_close(loss.detach(), parts["contrastive"] + parts["captions"] + parts["regions"])
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        totals.append(loss.item())
    assert totals[-1] < 0.8 * totals[0]


def test_the_last_block_gets_no_gradient_from_captions(batches):
    """The decoder reads the state before the last block, which therefore serves the contrastive loss alone."""
    clip = small_clip(width=32, depth=2)
    model, batch = CaptioningCLIP(clip, small_decoder(clip)), batches(0)
    _, logits = model(batch.pixels, batch.text_ids, batch.segments)
    captioning_loss(logits, batch.text_ids, batch.segments, batch.loss_mask).backward()
    first, last = clip.image_encoder.blocks
    assert first.mlp.up.weight.grad.abs().sum() > 0 and last.mlp.up.weight.grad is None


def test_probes_find_what_features_hold_and_nothing_in_noise():
    torch.manual_seed(0)
    labels = torch.randint(3, (200,))
    features = F.one_hot(labels, 3).float() + 0.1 * torch.randn(200, 3)
    assert (fit_probe(features, labels)(features).argmax(1) == labels).float().mean() > 0.95
    patches = object_patches("validation", 3, 20, 8)
    assert len(patches.places) == len(patches.labels["color"]) > 50
    accuracies = probe_patches(small_clip(width=16, depth=1).image_encoder)
    assert {"patch_seen", "patch_unseen", "patch_shape_seen"} <= set(accuracies)
    assert accuracies["patch_shape_unseen"] < 0.6
