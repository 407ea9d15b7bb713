"""Two models are connected as the config says, saved and loaded again; adapters are small."""

import json

import pytest
import torch
from PIL import Image

from apps.assistant.assistant import Assistant
from apps.assistant.build import build_model, connect, prepare_language_model, with_image_token
from apps.assistant.config import CONFIGURATIONS, AdapterSettings, ModelConfig, load
from apps.assistant.model_folder import GenerationSettings, chat_template, toy_preprocessing, write_preprocessing
from lessons.lesson_00_foundations.decoder.model import LanguageModel
from lessons.lesson_02_clip.model import CLIP, CLIPConfig
from lessons.lesson_02_clip.model.preprocessing import ImagePreprocessing
from shared.errors import CourseError
from shared.finetuning import Int8Linear, NF4Linear, adapter_parameter_names, find_adapters, trainable_fraction
from shared.tokenizers import Tokenizer, Turn
from shared.transformer import DecoderConfig

QWEN = DecoderConfig(
    151_936,
    width=896,
    depth=24,
    heads=14,
    kv_heads=2,
    mlp_dim=4864,
    rotary_base=1e6,
    norm_eps=1e-6,
    tied=True,
    qkv_bias=True,
)
"""The sizes of Qwen2.5-0.5B in its published config.json."""


@pytest.fixture(scope="module")
def published():
    """CLIP ViT-B/32 and Qwen2.5-0.5B on the meta device, without memory."""
    with torch.device("meta"):
        return CLIP(CLIPConfig()), LanguageModel(QWEN)


def test_the_projectors_have_the_published_sizes(published):
    clip, language_model = published
    assert sum(p.numel() for p in language_model.parameters()) == 494_032_768
    with torch.device("meta"):
        embedding, patches = (
            connect(clip, language_model, ModelConfig("", "", connector), 151_665)
            for connector in ("embedding", "patches")
        )
    assert embedding.projector.first.weight.shape == (896, 512)
    assert patches.projector.first.weight.shape == (896, 768)
    with torch.device("meta"):
        pixels = torch.zeros(2, 3, 224, 224)
        assert embedding.projector(embedding.image_features(pixels)).shape == (2, 1, 896)
        assert patches.projector(patches.image_features(pixels)).shape == (2, 49, 896)


def test_adapters_of_small_scale_train_less_than_a_hundredth_of_qwen(published):
    """Each linear layer of each block has rank · (in + out) adapter weights; nothing else is trained."""
    adapters = load(CONFIGURATIONS / "small_scale.json").model.adapters
    with torch.device("meta"):
        language_model = LanguageModel(QWEN)
        config = ModelConfig("", "", adapters=adapters)
        model = connect(published[0], language_model, config, 151_665)
        prepare_language_model(model, config)
    assert len(find_adapters(language_model)) == 7 * 24
    trainable = sum(p.numel() for p in language_model.parameters() if p.requires_grad)
    per_block = 2 * (896 + 896) + 2 * (896 + 128) + 3 * (896 + 4864)
    assert trainable == adapters.rank * per_block * 24
    assert 0.008 < trainable_fraction(language_model) < 0.01


@pytest.mark.parametrize("connector", ["patches", "embedding"])
def test_a_saved_assistant_loads_again(connector, make_assistant, tmp_path, noise):
    before = make_assistant(connector)
    before.save(tmp_path)
    after = Assistant.from_folder(tmp_path)
    assert type(after.model) is type(before.model)
    assert (after.settings, after.preprocessing) == (before.settings, before.preprocessing)
    assert after.image_tokens == {"patches": 4, "embedding": 1}[connector]
    pixels = torch.randn(2, 3, 16, 16)
    torch.testing.assert_close(after.model.image_features(pixels), before.model.image_features(pixels), rtol=0, atol=0)
    image = noise(20, 20)
    captions = [each.caption_image(image, max_new_tokens=12) for each in (before, after)]
    assert captions[0] == captions[1] != ""


def test_the_embedding_is_clips_without_normalization(model_folders):
    clip = CLIP.from_pretrained(model_folders[0])
    model = build_model(ModelConfig(*map(str, model_folders), "embedding")).model
    pixels = torch.randn(3, 3, 16, 16)
    features = model.image_features(pixels)[:, 0]
    torch.testing.assert_close(torch.nn.functional.normalize(features, dim=-1), clip.encode_images(pixels))
    torch.testing.assert_close(features, clip.image_projection(clip.image_encoder(pixels)))


def test_the_seed_determines_projector_and_adapters(model_folders):
    adapters = AdapterSettings(("*.query",), rank=2, alpha=4.0)
    one, again, other = (
        build_model(ModelConfig(*map(str, model_folders), adapters=adapters), seed).model for seed in (0, 0, 1)
    )
    for name in ("projector.first.weight", "language_model.blocks.0.attention.query.lora_down.weight"):
        assert torch.equal(one.get_parameter(name), again.get_parameter(name))
        assert not torch.equal(one.get_parameter(name), other.get_parameter(name))


@pytest.mark.parametrize(("weights", "layer_class"), [("int8", Int8Linear), ("nf4", NF4Linear)])
def test_quantized_weights_have_separate_adapters(weights, layer_class, model_folders):
    adapters = AdapterSettings(("*.query", "*.down"), rank=2, alpha=4.0, dora=True)
    model = build_model(ModelConfig(*map(str, model_folders), weights=weights, adapters=adapters)).model
    quantized = [module for module in model.modules() if isinstance(module, layer_class)]
    assert len(quantized) == 7 * 2, "seven linear layers per block; the tied embedding is not quantized"
    assert len(find_adapters(model)) == 2 * 2
    assert not [name for name in adapter_parameter_names(model) if not name.startswith("language_model.")]


def test_the_class_token_may_precede_the_patches(make_assistant, tmp_path):
    make_assistant(keep_class_token=True).save(tmp_path)
    assert Assistant.from_folder(tmp_path).image_tokens == 5
    assert json.loads((tmp_path / "config.json").read_text())["vision_feature_select_strategy"] == "full"


def test_patch_features_may_be_several_hidden_states(make_assistant, tmp_path):
    before = make_assistant(feature_layers=(0, -2))
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


def test_adapters_that_match_no_layer_are_refused(model_folders):
    with pytest.raises(CourseError, match=r"model.adapters: no linear layer matches '\*.nothing'"):
        build_model(ModelConfig(*map(str, model_folders), adapters=AdapterSettings(("*.nothing",), rank=2, alpha=4.0)))


def test_missing_models_are_named_with_their_download(model_folders):
    with pytest.raises(CourseError, match="hf download Qwen/Qwen9 --local-dir"):
        build_model(ModelConfig(str(model_folders[0]), "Qwen/Qwen9"))


# ── Tokens ────────────────────────────────────────────────────────────────────────────────────────────────────────────


@pytest.fixture(scope="module")
def chatml():
    return Tokenizer.train(
        ["user assistant what is this"], 270, special_tokens=["<|endoftext|>", "<|im_start|>", "<|im_end|>"]
    )


def test_a_tokenizer_without_an_image_token_gets_one_in_an_unused_row(chatml, tmp_path):
    with_image = with_image_token(chatml, chatml.vocab_size + 5, tmp_path)
    assert with_image.special_tokens["<image>"] == chatml.vocab_size
    assert with_image.encode("what is this") == chatml.encode("what is this")
    assert with_image_token(with_image, 999, tmp_path) is with_image
    added = Tokenizer(chatml.vocab, chatml.merges, added_tokens={"<image>": 300, "<tool_call>": 301}, nfc=True)
    with_image = with_image_token(added, 302, tmp_path)
    assert with_image.special_tokens == {"<image>": 300} and with_image.added_tokens == {"<tool_call>": 301}
    assert with_image.nfc and (with_image.vocab, with_image.merges) == (added.vocab, added.merges)
    with pytest.raises(CourseError, match="none is left for <image>"):
        with_image_token(chatml, chatml.vocab_size, tmp_path)


def test_the_chat_template_follows_the_special_tokens(chatml, tmp_path):
    template = chat_template(with_image_token(chatml, 999, tmp_path))
    conversation = template.encode(
        [Turn("user", "<image>\nwhat is this")], image_token_counts=[2], add_generation_prompt=True
    )
    text = template.tokenizer.decode(conversation.token_ids)
    assert text == "<|im_start|>user\n<image><image>\nwhat is this<|im_end|>\n<|im_start|>assistant\n"
    with pytest.raises(CourseError, match="to mark turns"):
        chat_template(Tokenizer.train(["a"], 260, special_tokens=["<image>"]))


# ── Folders ───────────────────────────────────────────────────────────────────────────────────────────────────────────


PREPROCESSINGS = [
    toy_preprocessing(32),
    ImagePreprocessing(24, crop=False, resample=Image.Resampling.BILINEAR),
    ImagePreprocessing(24, resized=30),
    ImagePreprocessing(24, crop=False, resized=30),
    ImagePreprocessing(24, pad=True),
    ImagePreprocessing(24, crop=False, resized=20, pad=True, mean=(0.1, 0.2, 0.3)),
]


@pytest.mark.parametrize("preprocessing", PREPROCESSINGS, ids=repr)
def test_preprocessing_is_written_and_read(preprocessing, tmp_path, noise):
    """By the course and by the published class that the file names."""
    from transformers import AutoImageProcessor

    write_preprocessing(tmp_path, preprocessing)
    assert ImagePreprocessing.from_pretrained(tmp_path) == preprocessing
    photos = [noise(41, 29), noise(29, 41)]
    published = AutoImageProcessor.from_pretrained(tmp_path, backend="pil")(photos, return_tensors="pt")
    torch.testing.assert_close(preprocessing(photos), published["pixel_values"], atol=1e-5, rtol=0)


def test_toy_images_are_normalized_as_in_lesson_2(noise):
    image = noise(32, 32)
    pixels = torch.tensor(list(image.tobytes())).view(32, 32, 3).permute(2, 0, 1)
    torch.testing.assert_close(toy_preprocessing(32)([image])[0], pixels.float() / 64 - 3.25, atol=1e-5, rtol=0)


def test_a_folder_of_another_type_is_refused(assistant, model_folders, tmp_path):
    with pytest.raises(CourseError, match="a model of type 'clip'; an assistant is one of llava, llava_embedding"):
        Assistant.from_folder(model_folders[0])
    assistant.save(tmp_path)
    (tmp_path / "assistant.json").write_text(json.dumps({"context": "long"}))
    with pytest.raises(CourseError, match='context: "long"; expected a whole number'):
        Assistant.from_folder(tmp_path)
    (tmp_path / "assistant.json").unlink()
    assert Assistant.from_folder(tmp_path).settings == GenerationSettings(2048)
    write_preprocessing(tmp_path, toy_preprocessing(8))
    with pytest.raises(CourseError, match="images of 8 pixels, but the vision encoder takes 16"):
        Assistant.from_folder(tmp_path)


def test_the_published_classes_read_the_folder_and_generate_the_same(make_assistant, tmp_path, noise):
    """Model, tokenizer and preprocessing, in the published layout."""
    from transformers import LlavaForConditionalGeneration, PreTrainedTokenizerFast
    from transformers.models.clip.image_processing_pil_clip import CLIPImageProcessorPil

    assistant = make_assistant(keep_class_token=True)
    assistant.save(tmp_path)
    published_model = LlavaForConditionalGeneration.from_pretrained(tmp_path).eval()
    tokenizer = PreTrainedTokenizerFast(tokenizer_file=str(tmp_path / "tokenizer.json"))
    image = noise(30, 20)
    pixels = CLIPImageProcessorPil.from_pretrained(tmp_path)([image], return_tensors="pt")["pixel_values"]
    torch.testing.assert_close(pixels, assistant.preprocessing([image]), atol=1e-5, rtol=0)
    text = f"<|begin|><|turn|>user\n{'<image>' * 5}\nwhat is it?<|end|>\n<|turn|>assistant\n"
    prompt = tokenizer(text, add_special_tokens=False, return_tensors="pt")["input_ids"]
    with torch.no_grad():
        generated = published_model.generate(
            input_ids=prompt,
            attention_mask=torch.ones_like(prompt),
            pixel_values=pixels,
            max_new_tokens=10,
            do_sample=False,
            eos_token_id=tokenizer.convert_tokens_to_ids("<|end|>"),
            pad_token_id=0,
        )
    expected = assistant.tokenizer.decode(generated[0, prompt.shape[1] :].tolist(), skip_special_tokens=True)
    assert assistant.caption_image(image, max_new_tokens=10) == expected != ""
