"""The parts of Emu3: causality, prompts, frames, vocabulary, guided generation, preferences."""

import math

import pytest
import torch

from lessons.lesson_12_emu3.model import (
    Emu3,
    FrameGrid,
    VisionSampling,
    VisionTokenizer,
    VisionTokenizerConfig,
    VisionVocabulary,
    generate_frames,
    vision_names,
    vision_token_ids,
)
from lessons.lesson_12_emu3.model.frames import CODE, codes_of_tokens, line_token_ids, token_kinds
from lessons.lesson_12_emu3.model.generation import FrameConstraint, guide_logits
from lessons.lesson_12_emu3.model.preference import (
    choose_pairs,
    image_preference_loss,
    join_generated,
    log_probabilities,
    weighted_next_token_loss,
)
from lessons.lesson_12_emu3.model.vocabulary import code_name, codes_of_names
from lessons.lesson_12_emu3.tests.small_models import (
    NAMES,
    TEXT_IDS,
    random_images,
    random_videos,
    small_config,
    small_model,
    small_tokenizer_config,
)
from shared.testing import redraw_weights

VOCABULARY = small_config().vocabulary
MARKERS = VOCABULARY.markers
SIZE = torch.tensor(TEXT_IDS[:2])


# ── The vision tokenizer ──────────────────────────────────────────────────────────────────────────────────────────────


def small_tokenizer(**changes):
    torch.manual_seed(1)
    return redraw_weights(VisionTokenizer(small_tokenizer_config(**changes)), buffers=True)


@torch.no_grad()
def test_codes_depend_on_no_later_frames():
    """A grid of codes depends on its own frames and on earlier ones, and on all of its own."""
    tokenizer = small_tokenizer(temporal_factor=4)
    videos = random_videos(1, 12, 6, 6, 3)
    latents = tokenizer.latents(videos)
    for changed in range(12):
        other = videos.clone()
        other[:, changed] += 1
        different = (tokenizer.latents(other) != latents).flatten(3).any(-1)[0].any(0).tolist()
        assert different[: changed // 4] == [False] * (changed // 4)
        assert different[changed // 4]


@torch.no_grad()
def test_frames_depend_on_no_later_codes():
    tokenizer = small_tokenizer(temporal_factor=4)
    codes = torch.randint(21, (1, 3, 2, 2))
    frames = tokenizer.decode_videos(codes)
    assert frames.shape == (1, 12, 3, 4, 4)
    for changed in range(3):
        other = codes.clone()
        other[:, changed] = (other[:, changed] + 1) % 21
        different = (tokenizer.decode_videos(other) != frames).flatten(2).any(-1)[0].tolist()
        assert different[: 4 * changed] == [False] * 4 * changed and all(different[4 * changed : 4 * changed + 4])


@torch.no_grad()
def test_a_row_does_not_depend_on_the_batch():
    tokenizer = small_tokenizer()
    videos = random_videos(3, 4, 8, 6, 3)
    assert torch.equal(tokenizer.encode_videos(videos)[1:2], tokenizer.encode_videos(videos[1:2]))


def test_wrong_videos_images_and_codes():
    tokenizer = small_tokenizer(temporal_factor=4, multipliers=(1, 1, 1))
    for shape in ((1, 6, 3, 8, 8), (1, 4, 2, 8, 8), (1, 0, 3, 8, 8)):
        with pytest.raises(ValueError, match="expected a multiple of 4 frames, of 3 channels"):
            tokenizer.encode_videos(torch.zeros(shape))
    with pytest.raises(ValueError, match="frames have 3 × 8 pixels; expected at least 4"):
        tokenizer.encode_images(torch.zeros(1, 3, 3, 8))
    for sizes in ([[9, 8]], [[8, 9]], [[0, 8]]):
        with pytest.raises(ValueError, match=r"expected a height and a width of at most \[8, 8\] for each of 1 images"):
            tokenizer.encode_images(torch.zeros(1, 3, 8, 8), torch.tensor(sizes))
    with pytest.raises(ValueError, match="the codebook has 0 to 20"):
        tokenizer.decode_images(torch.full((1, 2, 2), 21))


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"width": 40}, "channels that do not divide into 32 groups"),
        ({"multipliers": ()}, "expected at least one multiplier"),
        ({"temporal_factor": 6}, "expected a power of 2"),
        ({"temporal_factor": 0}, "expected a power of 2"),
        ({"code_dim": 4}, "expected equal numbers"),
        ({"multipliers": (1, 2), "attention_levels": (0,)}, "attention has the channels of the last resolution"),
        ({"attention_heads": 5}, "32 channels do not divide into 5 heads"),
    ],
)
def test_wrong_settings_of_the_tokenizer(changes, message):
    with pytest.raises(ValueError, match=message):
        small_tokenizer_config(**changes)


def test_the_published_size():
    """The paper's example: a clip of 4 × 512 × 512 or an image of 512 × 512 has 4,096 codes."""
    config = VisionTokenizerConfig()
    assert (512 // config.spatial_factor) ** 2 * (4 // config.temporal_factor) == 4096
    assert FrameGrid(64, 64).codes == 4096 and FrameGrid(64, 64).tokens == 64 * 65 + 3


# ── Vocabulary, frames ────────────────────────────────────────────────────────────────────────────────────────────────


def test_names_and_token_ids_of_codes():
    assert code_name(305) == "<|visual token 000305|>" and codes_of_names([code_name(32_767)]) == [32_767]
    codes = torch.tensor([[0, 20], [7, 7]])
    token_ids = VOCABULARY.token_ids(codes)
    assert token_ids[1, 0] == NAMES[code_name(7)] and torch.equal(VOCABULARY.codes(token_ids), codes)
    assert VOCABULARY.is_code().sum() == 21 and VOCABULARY.is_code()[token_ids].all()
    with pytest.raises(ValueError, match=f"token id {TEXT_IDS[0]} is no code"):
        VOCABULARY.codes(torch.tensor([int(token_ids[0, 0]), TEXT_IDS[0]]))
    with pytest.raises(ValueError, match="the codebook has 0 to 20"):
        VOCABULARY.token_ids(torch.tensor([21]))
    for code in (-1, 10**6):
        with pytest.raises(ValueError, match="has no name of six digits"):
            code_name(code)


def test_a_vocabulary_without_markers_reads_images_and_generates_none():
    names = {name: place for place, name in enumerate(vision_names(3)) if "image" not in name}
    vocabulary = VisionVocabulary.from_names(names, 3, 20)
    assert vocabulary.placeholder is None
    with pytest.raises(
        ValueError, match=r"vocabulary_map has no <\|image start\|>, <\|image token\|>, <\|image end\|>"
    ):
        _ = vocabulary.markers


def test_a_complete_video():
    token_ids = VOCABULARY.token_ids(torch.randint(21, (3, 2, 4)))
    tokens = vision_token_ids(token_ids, MARKERS, SIZE)
    assert tokens[[0, 3, -1]].tolist() == [MARKERS.start, MARKERS.tokens, MARKERS.end]
    assert torch.equal(codes_of_tokens(tokens[None, 4:], 3, 2, 4)[0], token_ids)
    assert len(tokens) - 4 == FrameGrid(2, 4, 3).tokens - 1  # [EOS] belongs to the sequence
    assert line_token_ids(token_ids[0], 5).tolist() == [*token_ids[0, 0].tolist(), 5, *token_ids[0, 1].tolist(), 5]


def test_frames_are_far_more_codes_than_markers():
    kinds = token_kinds(2, 90, 90)
    assert (kinds == CODE).sum() == 2 * 90 * 90 and len(kinds) == FrameGrid(90, 90, 2).tokens


def test_wrong_grids():
    with pytest.raises(ValueError, match="expected at least 1 each"):
        FrameGrid(0, 3)
    with pytest.raises(ValueError, match="8 tokens; expected at least 9 for 1 frames of 2 × 3 codes"):
        codes_of_tokens(torch.zeros(1, 8, dtype=torch.long), 1, 2, 3)


def test_placeholders_must_fit_the_images():
    model = small_model()
    images = random_images(1, 4, 6, 3)
    prompt = torch.tensor([[VOCABULARY.placeholder] * 8])
    assert torch.equal(model.insert_images(prompt, images)[0], model.image_token_ids(images))
    with pytest.raises(ValueError, match="7 image placeholders, but 1 images have 8 tokens; write rows · "):
        model.insert_images(prompt[:, 1:], images)


# ── Guided generation ─────────────────────────────────────────────────────────────────────────────────────────────────


def prompts(*texts):
    """Return prompts with a caption, and one without a caption for each."""
    rows = [torch.tensor([MARKERS.bos, *text, MARKERS.start, *SIZE, MARKERS.tokens]) for text in texts]
    none = torch.tensor([MARKERS.bos, MARKERS.start, *SIZE, MARKERS.tokens])
    return rows, [none] * len(rows)


CAPTIONS = (TEXT_IDS[3:8], TEXT_IDS[9:10], [])


def lively_model(**changes):
    """Return a model whose tokens depend on the prompt."""
    model = small_model(**changes)
    with torch.no_grad():
        model.language_model.embedding.weight.mul_(4)
        model.language_model.output.weight.mul_(2)
    return model


@pytest.mark.parametrize("frames", [1, 2])
@pytest.mark.parametrize("guidance", [1.0, 4.0])
def test_every_image_and_video_is_complete(frames, guidance):
    model, grid = lively_model(), FrameGrid(3, 2, frames)
    tokens = model.generate_frames(*prompts(*CAPTIONS), grid, VisionSampling(guidance))
    assert tokens.shape == (3, grid.tokens)
    codes = VOCABULARY.codes(codes_of_tokens(tokens, frames, 3, 2))
    for row, grids in zip(tokens, codes, strict=True):
        complete = vision_token_ids(VOCABULARY.token_ids(grids), MARKERS, SIZE)
        assert row.tolist() == [*complete[4:].tolist(), MARKERS.eos]
    pixels = model.decode_frames(tokens, grid)
    assert pixels.shape == (3, 1 if frames == 1 else 2 * frames, 3, 6, 4)
    if frames == 1:
        assert torch.equal(pixels[:, 0], model.tokenizer.decode_images(codes[:, 0]))
    else:
        assert torch.equal(pixels, model.tokenizer.decode_videos(codes))


def test_guidance_is_that_of_two_separate_rows():
    """Greedy decoding with one cache equals a computation without any cache, row by row."""
    model, grid = lively_model(), FrameGrid(2, 2)
    rows, none = prompts(*CAPTIONS)
    tokens = model.generate_frames(rows, none, grid, VisionSampling(3.0, temperature=0.0))
    allowed = FrameConstraint(VOCABULARY, grid, 1)
    changed_by_guidance = 0
    for place in range(grid.tokens):
        for row, prompt in enumerate(rows):
            with torch.no_grad():
                conditional, unconditional = (
                    model(torch.cat([start, tokens[row, :place]])[None])[:, -1] for start in (prompt, none[row])
                )
            logits = guide_logits(conditional, unconditional, 3.0).masked_fill(~allowed.allowed(), -torch.inf)
            assert logits.argmax() == tokens[row, place]
            plain = conditional.masked_fill(~allowed.allowed(), -torch.inf).argmax()
            changed_by_guidance += int(plain != tokens[row, place])
        allowed.advance(tokens[:1, place])
    assert changed_by_guidance > 0


def test_without_guidance_the_unconditional_prompts_are_not_used():
    model, grid, sampling = lively_model(), FrameGrid(2, 2), VisionSampling(1.0, temperature=0.0)
    rows, none = prompts(*CAPTIONS)
    tokens = model.generate_frames(rows, none, grid, sampling)
    assert torch.equal(tokens, model.generate_frames(rows, [], grid, sampling))
    # Scale 0 ignores the caption.
    ignored = model.generate_frames(rows, none, grid, VisionSampling(0.0, temperature=0.0))
    assert torch.equal(ignored[0], ignored[1]) and not torch.equal(tokens[0], tokens[1])


def test_codes_are_sampled_from_the_guided_probabilities():
    model, grid = lively_model(), FrameGrid(1, 1)
    rows, none = prompts(CAPTIONS[0])
    with torch.no_grad():
        logits = guide_logits(*(model(row[None])[:, -1] for row in (rows[0], none[0])), 2.0)[0]
    expected = (logits[list(VOCABULARY.code_token_ids)] / 1.5).softmax(0)
    count = 3000
    tokens = model.generate_frames(
        rows * count, none * count, grid, VisionSampling(2.0, 1.5, None), torch.Generator().manual_seed(0)
    )
    counts = torch.bincount(VOCABULARY.codes(tokens[:, 0]), minlength=21) / count
    torch.testing.assert_close(counts, expected, atol=0.03, rtol=0)
    best = model.generate_frames(rows * 50, none * 50, grid, VisionSampling(2.0, 1.5, 2))
    assert set(VOCABULARY.codes(best[:, 0]).tolist()) <= set(expected.topk(2).indices.tolist())


def test_rows_do_not_depend_on_the_batch():
    model, grid = lively_model(), FrameGrid(2, 3)
    rows, none = prompts(*CAPTIONS)

    def generators():
        return [torch.Generator().manual_seed(seed) for seed in range(3)]

    together = model.generate_frames(rows, none, grid, VisionSampling(), generators())
    for place, generator in enumerate(generators()):
        alone = model.generate_frames([rows[place]], [none[place]], grid, VisionSampling(), [generator])
        assert torch.equal(alone[0], together[place])


def test_the_model_returns_to_training():
    model = lively_model().train()
    model.generate_frames(*prompts(CAPTIONS[1]), FrameGrid(1, 1), VisionSampling())
    assert model.language_model.training


def test_wrong_prompts():
    model, grid = small_model(), FrameGrid(2, 3)
    rows, none = prompts(*CAPTIONS)
    decoder = model.language_model
    for wrong, without, message in (
        ([], [], "0 prompts and 0 unconditional prompts"),
        (rows, none[:2], "3 prompts and 2 unconditional prompts"),
        ([rows[0][:-1]], none[:1], f"prompt 0 does not end with the token {MARKERS.tokens}"),
        (rows[:1], [none[0][:0]], "prompt 0 does not end with the token"),
        ([torch.cat([torch.tensor([61]), rows[0]])], none[:1], "the vocabulary has 0 to 60"),
        ([rows[0].repeat(7)], none[:1], "prompt 0 has 70 tokens; with its frames the context has place for 53"),
    ):
        with pytest.raises(ValueError, match=message):
            generate_frames(decoder, VOCABULARY, wrong, without, grid, VisionSampling())


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"guidance": -1.0}, "guidance is -1.0; expected a scale of at least 0"),
        ({"guidance": math.inf}, "guidance is inf"),
        ({"guidance": math.nan}, "guidance is nan"),
        ({"temperature": -1.0}, "temperature is -1.0"),
        ({"top_k": 0}, "top_k is 0; expected at least 1"),
    ],
)
def test_wrong_sampling(settings, message):
    with pytest.raises(ValueError, match=message):
        VisionSampling(**settings)


def test_no_token_comes_after_the_end():
    constraint = FrameConstraint(VOCABULARY, FrameGrid(1, 1), 2)
    for _ in range(5):
        assert constraint.allowed().shape == (2, 61)
        constraint.advance(torch.zeros(2, dtype=torch.long))
    with pytest.raises(ValueError, match="the sequence ended after 5 tokens"):
        constraint.allowed()


# ── Losses ────────────────────────────────────────────────────────────────────────────────────────────────────────────


def generated(model, count=3, seed=0):
    rows, none = prompts(*CAPTIONS[:count])
    tokens = model.generate_frames(rows, none, FrameGrid(2, 2), VisionSampling(), torch.Generator().manual_seed(seed))
    return join_generated(rows, tokens, VOCABULARY.is_code())


def test_the_loss_of_an_image_is_that_of_its_codes():
    model = lively_model()
    images = generated(model)
    assert images.loss_mask.sum(dim=1).tolist() == [4, 4, 4]
    with torch.no_grad():
        actual = log_probabilities(model.language_model, images)
    for row in range(3):
        length = int((images.segments[row] >= 0).sum())
        with torch.no_grad():
            logits = model(images.token_ids[row : row + 1, :length])[0].log_softmax(-1)
        places = images.loss_mask[row].nonzero().flatten()
        assert VOCABULARY.is_code()[images.token_ids[row, places]].all()
        expected = sum(logits[place - 1, images.token_ids[row, place]] for place in places)
        assert actual[row] == pytest.approx(expected.item(), abs=1e-4)
    with pytest.raises(ValueError, match="2 prompts for 1 generated images"):
        join_generated([SIZE, SIZE], SIZE[None], VOCABULARY.is_code())


def test_codes_of_images_in_the_prompt_are_not_preferred():
    code = VOCABULARY.code_token_ids[0]
    images = join_generated(
        [torch.tensor([code, 1])], torch.tensor([[code, MARKERS.end_of_line]]), VOCABULARY.is_code()
    )
    assert images.loss_mask.tolist() == [[False, False, True, False]]


def test_preference_training_raises_the_preferred_images():
    model = lively_model()
    reference, policy = model.language_model, lively_model().language_model
    preferred, rejected = generated(model, seed=1), generated(model, seed=2)
    arguments = {"beta": 0.1, "sft_weight": 0.0}
    loss, metrics = image_preference_loss(policy, reference, preferred, rejected, **arguments)
    assert loss.item() == pytest.approx(math.log(2), abs=1e-5) and metrics["reward_margin"].abs() < 1e-5
    optimizer = torch.optim.Adam(policy.parameters(), 1e-3)
    for _ in range(20):
        optimizer.zero_grad()
        loss, metrics = image_preference_loss(policy, reference, preferred, rejected, **arguments)
        loss.backward()
        optimizer.step()
    assert metrics["reward_margin"] > 0.1 and loss < math.log(2)
    with_sft, metrics = image_preference_loss(policy, reference, preferred, rejected, beta=0.1, sft_weight=2.0)
    plain, _ = image_preference_loss(policy, reference, preferred, rejected, **arguments)
    assert (with_sft - plain).item() == pytest.approx(2 * metrics["cross_entropy"].item(), rel=1e-4)
    mean = log_probabilities(policy, preferred).sum() / preferred.loss_mask.sum()
    assert metrics["cross_entropy"].item() == pytest.approx(-mean.item(), rel=1e-4)


def test_wrong_scores():
    with pytest.raises(ValueError, match="scores must be finite numbers"):
        choose_pairs(torch.tensor([[1.0, math.nan]]))
    with pytest.raises(ValueError, match="the margin is"):
        choose_pairs(torch.zeros(1, 2), -1.0)
    assert choose_pairs(torch.tensor([[0.0, 1.0]])).preferred.tolist() == [1]


def test_a_model_learns_images_with_the_weighted_loss():
    torch.manual_seed(0)
    model = Emu3(small_config())
    rows, _ = prompts(CAPTIONS[0], CAPTIONS[1])
    images = [torch.randint(21, (1, 2, 2)) for _ in rows]
    texts = [
        torch.cat([row, vision_token_ids(VOCABULARY.token_ids(image), MARKERS, SIZE)[4:], torch.tensor([MARKERS.eos])])
        for row, image in zip(rows, images, strict=True)
    ]
    token_ids = torch.nn.utils.rnn.pad_sequence(texts, batch_first=True)
    segments = torch.tensor([[0] * len(text) + [-1] * (token_ids.shape[1] - len(text)) for text in texts])
    optimizer = torch.optim.Adam(model.language_model.parameters(), 1e-2)
    for _ in range(60):
        logits = model(token_ids, segments=segments)
        loss = weighted_next_token_loss(logits, token_ids, segments, VOCABULARY.is_code(), 0.5)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    sampling = VisionSampling(1.0, temperature=0.0)
    tokens = model.generate_frames(rows, [], FrameGrid(2, 2), sampling)
    codes = VOCABULARY.codes(codes_of_tokens(tokens, 1, 2, 2))
    assert torch.equal(codes, torch.stack(images))
