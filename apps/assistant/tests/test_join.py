"""Two towers are joined as the choice says, saved, and loaded again; adapters are few and end up in the weights."""

import json

import pytest
import torch
from PIL import Image

from apps.assistant.assistant import Assistant
from apps.assistant.config import CONFIGURATIONS, AdaptersChoice, ModelChoice, load
from apps.assistant.files import Habits, template_of, toy_preprocessing, write_preprocessing
from apps.assistant.join import adapt, connect, join, with_image_token
from lessons.lesson_00_foundations.decoder.model import LanguageModel
from lessons.lesson_02_clip.model import CLIP, CLIPConfig
from lessons.lesson_02_clip.model.preprocessing import ImagePreprocessing
from shared.errors import CourseError
from shared.finetuning import Int8Linear, NF4Linear, adapter_parameter_names, find_adapters, trainable_fraction
from shared.tokenizers import Tokenizer, Turn
from shared.transformer import DecoderConfig

QWEN = DecoderConfig(
    151_936, width=896, depth=24, heads=14, kv_heads=2, mlp_dim=4864, rotary_base=1e6, norm_eps=1e-6, tied=True, qkv_bias=True
)  # fmt: skip
"""Qwen2.5-0.5B's own sizes, as its published config.json has them."""


@pytest.fixture(scope="module")
def published():
    """CLIP ViT-B/32 and Qwen2.5-0.5B without a byte of memory."""
    with torch.device("meta"):
        return CLIP(CLIPConfig()), LanguageModel(QWEN)


def test_the_projectors_have_the_published_sizes(published):
    clip, language = published
    assert sum(p.numel() for p in language.parameters()) == 494_032_768
    with torch.device("meta"):
        embedding, patches = (
            connect(clip, language, ModelChoice("", "", way), 151_665) for way in ("embedding", "patches")
        )
    assert embedding.projector.first.weight.shape == (896, 512)
    assert patches.projector.first.weight.shape == (896, 768)
    with torch.device("meta"):
        pixels = torch.zeros(2, 3, 224, 224)
        assert embedding.projector(embedding.image_features(pixels)).shape == (2, 1, 896)
        assert patches.projector(patches.image_features(pixels)).shape == (2, 49, 896)


def test_adapters_of_small_scale_learn_less_than_a_hundredth_of_qwen(published):
    """Every matrix of every block: rank · (in + out) numbers each, and nothing else of the language model."""
    adapters = load(CONFIGURATIONS / "small_scale.json").model.adapters
    with torch.device("meta"):
        language = LanguageModel(QWEN)
        choice = ModelChoice("", "", adapters=adapters)
        model = connect(published[0], language, choice, 151_665)
        adapt(model, choice)
    assert len(find_adapters(language)) == 7 * 24
    learning = sum(p.numel() for p in language.parameters() if p.requires_grad)
    a_block = 2 * (896 + 896) + 2 * (896 + 128) + 3 * (896 + 4864)
    assert learning == adapters.rank * a_block * 24
    assert 0.008 < trainable_fraction(language) < 0.01


@pytest.mark.parametrize("connector", ["patches", "embedding"])
def test_a_saved_assistant_loads_again(connector, make_assistant, tmp_path, noise):
    before = make_assistant(connector)
    before.save(tmp_path)
    after = Assistant.from_folder(tmp_path)
    assert type(after.model) is type(before.model)
    assert (after.habits, after.preprocessing) == (before.habits, before.preprocessing)
    assert after.image_tokens == {"patches": 4, "embedding": 1}[connector]
    pixels = torch.randn(2, 3, 16, 16)
    torch.testing.assert_close(after.model.image_features(pixels), before.model.image_features(pixels), rtol=0, atol=0)
    picture = noise(20, 20)
    said = [each.caption_image(picture, max_new_tokens=12) for each in (before, after)]
    assert said[0] == said[1] != ""


def test_the_embedding_is_clips_own_at_its_own_length(towers):
    clip = CLIP.from_pretrained(towers[0])
    model = join(ModelChoice(*map(str, towers), "embedding")).model
    pixels = torch.randn(3, 3, 16, 16)
    seen = model.image_features(pixels)[:, 0]
    torch.testing.assert_close(torch.nn.functional.normalize(seen, dim=-1), clip.encode_images(pixels))
    torch.testing.assert_close(seen, clip.image_projection(clip.image_encoder(pixels)))


def test_a_seed_draws_the_projector_and_the_adapters(towers):
    adapters = AdaptersChoice(("*.query",), rank=2, alpha=4.0)
    one, again, other = (join(ModelChoice(*map(str, towers), adapters=adapters), seed).model for seed in (0, 0, 1))
    for name in ("projector.first.weight", "language_model.blocks.0.attention.query.lora_down.weight"):
        assert torch.equal(one.get_parameter(name), again.get_parameter(name))
        assert not torch.equal(one.get_parameter(name), other.get_parameter(name))


@pytest.mark.parametrize(("weights", "kind"), [("int8", Int8Linear), ("nf4", NF4Linear)])
def test_weights_in_few_bits_keep_their_adapters_apart(weights, kind, towers):
    adapters = AdaptersChoice(("*.query", "*.down"), rank=2, alpha=4.0, dora=True)
    model = join(ModelChoice(*map(str, towers), weights=weights, adapters=adapters)).model
    stored = [module for module in model.modules() if isinstance(module, kind)]
    assert len(stored) == 7 * 2, "seven matrices a block; the embedding, which is the output too, is left whole"
    assert len(find_adapters(model)) == 2 * 2
    assert not [name for name in adapter_parameter_names(model) if not name.startswith("language_model.")]


def test_the_class_token_may_stand_before_the_patches(make_assistant, tmp_path):
    make_assistant(class_token=True).save(tmp_path)
    assert Assistant.from_folder(tmp_path).image_tokens == 5
    assert json.loads((tmp_path / "config.json").read_text())["vision_feature_select_strategy"] == "full"


def test_a_patch_may_be_shown_by_several_of_the_eyes_states(make_assistant, tmp_path):
    before = make_assistant(layers=(0, -2), scales=(4.0, 1.0))
    pixels = torch.randn(2, 3, 16, 16)
    vectors = before.model.projector(before.model.image_features(pixels))
    before.save(tmp_path)
    after = Assistant.from_folder(tmp_path)
    assert after.model.feature_layers == (0, -2) and after.image_tokens == 4
    assert torch.equal(after.model.projector(after.model.image_features(pixels)), vectors)
    states = before.model.vision_encoder.hidden_states(pixels)
    torch.testing.assert_close(
        after.model.image_features(pixels), torch.cat([states[0][:, 1:], states[-2][:, 1:]], dim=-1)
    )


def test_there_is_a_scale_for_each_state_or_none(towers):
    with pytest.raises(ValueError, match="1 scales for 2 layers"):
        ModelChoice(*map(str, towers), layers=(0, -2), scales=(4.0,))


def test_adapters_that_fit_no_layer_are_told(towers):
    with pytest.raises(CourseError, match=r"model.adapters: no linear layer matches '\*.nothing'"):
        join(ModelChoice(*map(str, towers), adapters=AdaptersChoice(("*.nothing",), rank=2, alpha=4.0)))


def test_missing_models_are_told_with_the_way_to_get_them(towers):
    with pytest.raises(CourseError, match="hf download Qwen/Qwen9 --local-dir"):
        join(ModelChoice(str(towers[0]), "Qwen/Qwen9"))


# ── Tokens ────────────────────────────────────────────────────────────────────────────────────────────────────────────


@pytest.fixture(scope="module")
def chatml():
    return Tokenizer.train(
        ["user assistant what is this"], 270, special_tokens=["<|endoftext|>", "<|im_start|>", "<|im_end|>"]
    )


def test_a_tokenizer_without_an_image_gets_one_in_a_row_to_spare(chatml, tmp_path):
    with_image = with_image_token(chatml, chatml.vocab_size + 5, tmp_path)
    assert with_image.special_tokens["<image>"] == chatml.vocab_size
    assert with_image.encode("what is this") == chatml.encode("what is this")
    assert with_image_token(with_image, 999, tmp_path) is with_image
    with pytest.raises(CourseError, match="none is left for <image>"):
        with_image_token(chatml, chatml.vocab_size, tmp_path)


def test_conversations_are_written_as_the_tokenizer_knows_them(chatml, tmp_path):
    template = template_of(with_image_token(chatml, 999, tmp_path))
    written = template.encode(
        [Turn("user", "<image>\nwhat is this")], image_token_counts=[2], add_generation_prompt=True
    )
    said = template.tokenizer.decode(written.token_ids)
    assert said == "<|im_start|>user\n<image><image>\nwhat is this<|im_end|>\n<|im_start|>assistant\n"
    with pytest.raises(CourseError, match="so nothing says where a turn begins"):
        template_of(Tokenizer.train(["a"], 260, special_tokens=["<image>"]))


# ── Folders ───────────────────────────────────────────────────────────────────────────────────────────────────────────


def test_preprocessing_is_written_as_it_is_read(tmp_path):
    write_preprocessing(tmp_path, toy_preprocessing(32))
    assert ImagePreprocessing.from_pretrained(tmp_path) == toy_preprocessing(32)
    stretched = ImagePreprocessing(24, crop=False, resample=Image.Resampling.BILINEAR)
    write_preprocessing(tmp_path, stretched)
    assert ImagePreprocessing.from_pretrained(tmp_path) == stretched


def test_toy_pictures_are_standardized_as_lesson_2_has_it(noise):
    picture = noise(32, 32)
    pixels = torch.tensor(list(picture.tobytes())).view(32, 32, 3).permute(2, 0, 1)
    torch.testing.assert_close(toy_preprocessing(32)([picture])[0], pixels.float() / 64 - 3.25, atol=1e-5, rtol=0)


def test_a_folder_of_another_kind_is_told(assistant, towers, tmp_path):
    with pytest.raises(CourseError, match="a model of type 'clip'; an assistant is one of llava, llava_embedding"):
        Assistant.from_folder(towers[0])
    assistant.save(tmp_path)
    (tmp_path / "assistant.json").write_text(json.dumps({"context": "long"}))
    with pytest.raises(CourseError, match='context: "long"; expected a whole number'):
        Assistant.from_folder(tmp_path)
    (tmp_path / "assistant.json").unlink()
    assert Assistant.from_folder(tmp_path).habits == Habits(2048)
    write_preprocessing(tmp_path, toy_preprocessing(8))
    with pytest.raises(CourseError, match="pictures of 8 pixels, but the eye takes 16"):
        Assistant.from_folder(tmp_path)


def test_other_programs_read_the_folder_and_say_the_same(make_assistant, tmp_path, noise):
    """Model, tokenizer and preprocessing, in the published layout."""
    from transformers import LlavaForConditionalGeneration, PreTrainedTokenizerFast
    from transformers.models.clip.image_processing_pil_clip import CLIPImageProcessorPil

    ours = make_assistant(class_token=True)
    ours.save(tmp_path)
    theirs = LlavaForConditionalGeneration.from_pretrained(tmp_path).eval()
    tokenizer = PreTrainedTokenizerFast(tokenizer_file=str(tmp_path / "tokenizer.json"))
    picture = noise(30, 20)
    pixels = CLIPImageProcessorPil.from_pretrained(tmp_path)([picture], return_tensors="pt")["pixel_values"]
    torch.testing.assert_close(pixels, ours.preprocessing([picture]), atol=1e-5, rtol=0)
    written = f"<|begin|><|turn|>user\n{'<image>' * 5}\nwhat is it?<|end|>\n<|turn|>assistant\n"
    prompt = tokenizer(written, add_special_tokens=False, return_tensors="pt")["input_ids"]
    with torch.no_grad():
        said = theirs.generate(
            input_ids=prompt,
            attention_mask=torch.ones_like(prompt),
            pixel_values=pixels,
            max_new_tokens=10,
            do_sample=False,
            eos_token_id=tokenizer.convert_tokens_to_ids("<|end|>"),
            pad_token_id=0,
        )
    expected = ours.tokenizer.decode(said[0, prompt.shape[1] :].tolist(), skip_special_tokens=True)
    assert ours.caption_image(picture, max_new_tokens=10) == expected != ""
