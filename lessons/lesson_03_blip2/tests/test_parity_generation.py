"""Equality of BLIP-2 and OPT with the published classes, in both directions, with sizes that all differ."""

import pytest
import torch
from safetensors.torch import load_file, save_file
from transformers import (
    Blip2Config,
    Blip2ForConditionalGeneration,
    Blip2QFormerConfig,
    Blip2VisionConfig,
    LlamaConfig,
    OPTConfig,
    OPTForCausalLM,
    Qwen2Config,
)

from lessons.lesson_03_blip2.model import OPT, Blip2, config_mapping, opt_config
from lessons.lesson_03_blip2.tests.published_models import (
    IMAGE_TOKEN_ID,
    OPT_SIZES,
    QFORMER,
    QUERIES,
    VISION,
    assert_same_files,
    close,
    load_published,
)
from shared.errors import CourseError
from shared.testing import redraw_weights, rewrite_config
from shared.transformer import Sampling, generate

# ── Generation ────────────────────────────────────────────────────────────────────────────────────────────────────────

DECODER_SIZES = {
    "vocab_size": 43,
    "hidden_size": 28,
    "num_hidden_layers": 2,
    "intermediate_size": 36,
    "num_attention_heads": 7,
    "num_key_value_heads": 1,
    "rms_norm_eps": 1e-3,
}
SCALED = {
    "rope_type": "llama3",
    "rope_theta": 500.0,
    "factor": 4.0,
    "low_freq_factor": 1.0,
    "high_freq_factor": 3.0,
    "original_max_position_embeddings": 6,
}
LANGUAGE_MODELS = {
    "opt": OPTConfig(**OPT_SIZES, vocab_size=43, max_position_embeddings=40),
    "llama": LlamaConfig(**DECODER_SIZES, rope_parameters={"rope_type": "default", "rope_theta": 500.0}),
    "scaled llama": LlamaConfig(**DECODER_SIZES, rope_parameters=SCALED),
    "tied qwen2": Qwen2Config(**DECODER_SIZES, tie_word_embeddings=True),
}


def published_blip2(language):
    config = Blip2Config(
        vision_config=Blip2VisionConfig(**VISION, image_size=12),
        qformer_config=Blip2QFormerConfig(**QFORMER, num_hidden_layers=3),
        text_config=LANGUAGE_MODELS[language],
        num_query_tokens=QUERIES,
        image_token_index=IMAGE_TOKEN_ID,
    )
    return redraw_weights(Blip2ForConditionalGeneration(config), buffers=True)


def published_logits(model, images, tokens, segments):
    """Return the published model's logits; one image token per query precedes the text, as its processor has it."""
    image_tokens = torch.full((len(tokens), QUERIES), IMAGE_TOKEN_ID)
    attention_mask = torch.cat([torch.ones_like(image_tokens), (segments >= 0).long()], dim=1)
    with torch.no_grad():
        out = model(images, torch.cat([image_tokens, tokens], dim=1), attention_mask=attention_mask)
    return out.logits[:, QUERIES:]


def assert_same_blip2(published, model):
    images, tokens = torch.randn(3, 3, 12, 12), torch.randint(3, 40, (3, 6))
    segments = torch.tensor([[0] * 6, [0] * 4 + [-1] * 2, [0] + [-1] * 5])
    expected = published_logits(published, images, tokens, segments)
    with torch.no_grad():
        logits = model(images, tokens, segments)
    close(logits[segments >= 0], expected[segments >= 0])
    close(model(images, tokens).detach(), published_logits(published, images, tokens, torch.zeros_like(segments)))


@pytest.mark.parametrize("language", LANGUAGE_MODELS)
def test_blip2_both_ways(language, tmp_path):
    published = published_blip2(language)
    published.save_pretrained(tmp_path / "published")
    model = Blip2.from_pretrained(tmp_path / "published")
    assert_same_blip2(published, model)
    model.save_pretrained(tmp_path / "model", image_token_id=IMAGE_TOKEN_ID)
    assert_same_files(tmp_path)
    assert_same_blip2(load_published(Blip2ForConditionalGeneration, tmp_path / "model"), model)


@pytest.mark.parametrize("language", LANGUAGE_MODELS)
def test_generation_equals_the_published_class(language, tmp_path):
    published = published_blip2(language)
    published.save_pretrained(tmp_path)
    model = Blip2.from_pretrained(tmp_path)
    images, prompts = torch.randn(2, 3, 12, 12), torch.randint(3, 40, (2, 4))
    image_tokens = torch.full((2, QUERIES), IMAGE_TOKEN_ID)
    expected = published.generate(
        images, torch.cat([image_tokens, prompts], dim=1), max_new_tokens=9, min_new_tokens=9, do_sample=False
    )
    texts = model.generate(model.vision_encoder.features(images), list(prompts), Sampling(9))
    assert torch.equal(torch.stack(texts), expected[:, -9:])
    assert len(set(torch.cat(texts).tolist())) > 1


def test_public_files_hold_the_tied_output_layer_and_fewer_settings(tmp_path):
    """Read files like those of 2023: the output layer stored twice, no image token, no `dtype`, defaults left out."""
    published = published_blip2("opt")
    published.save_pretrained(tmp_path)
    tensors = load_file(tmp_path / "model.safetensors")
    head = tensors["language_model.model.decoder.embed_tokens.weight"].clone()
    save_file(tensors | {"language_model.lm_head.weight": head}, tmp_path / "model.safetensors")

    def age(config):
        del config["image_token_index"], config["dtype"], config["vision_config"]["qkv_bias"]
        for name in ("enable_bias", "_remove_final_layer_norm", "tie_word_embeddings", "activation_function"):
            del config["text_config"][name]
        config |= {"torch_dtype": "float16", "transformers_version": "4.27.0.dev0"}
        config["qformer_config"]["encoder_hidden_size"] = 1408

    rewrite_config(tmp_path, age)
    assert_same_blip2(published, Blip2.from_pretrained(tmp_path))

    save_file(tensors | {"language_model.lm_head.weight": head + 1}, tmp_path / "model.safetensors")
    with pytest.raises(CourseError, match=r"untied: language_model\.lm_head\.weight"):
        Blip2.from_pretrained(tmp_path)


def test_the_public_sizes():
    """The defaults are those of the published classes: 39 blocks of EVA, 32 queries of BERT-base width."""
    model = config_mapping.read_settings(config_mapping.VISION_SETTINGS, {})
    published = Blip2VisionConfig()
    assert (model["width"], model["depth"], model["mlp_dim"]) == (1408, 39, 6144)
    assert model["norm_eps"] == published.layer_norm_eps
    qformer, published = config_mapping.read_settings(config_mapping.QFORMER_SETTINGS, {}), Blip2QFormerConfig()
    assert (qformer["width"], qformer["depth"], qformer["cross_attention_frequency"]) == (768, 12, 2)
    assert qformer["norm_eps"] == published.layer_norm_eps
    assert Blip2Config().num_query_tokens == 32


# ── OPT alone ─────────────────────────────────────────────────────────────────────────────────────────────────────────


def assert_same_opt(published, model):
    tokens = torch.randint(3, 43, (3, 7))
    segments = torch.tensor([[0] * 7, [0] * 5 + [-1] * 2, [0] * 2 + [-1] * 5])
    with torch.no_grad():
        close(model(tokens), published(tokens).logits)
        expected = published(tokens, attention_mask=(segments >= 0).long()).logits
        close(model(tokens, segments=segments)[segments >= 0], expected[segments >= 0])


@pytest.mark.parametrize("oldest", [False, True], ids=["current names", "oldest names"])
def test_opt_both_ways(oldest, tmp_path):
    published = redraw_weights(OPTForCausalLM(LANGUAGE_MODELS["opt"]), buffers=True)
    published.save_pretrained(tmp_path / "published")
    if oldest:
        file = tmp_path / "published" / "model.safetensors"
        save_file({name.removeprefix("model."): tensor for name, tensor in load_file(file).items()}, file)
    model = OPT.from_pretrained(tmp_path / "published")
    assert_same_opt(published, model)
    model.save_pretrained(tmp_path / "model")
    assert_same_opt(load_published(OPTForCausalLM, tmp_path / "model"), model)


def test_opt_generates_the_same_with_and_without_a_cache():
    model = redraw_weights(
        OPT(opt_config(vocab_size=43, width=28, depth=2, heads=4, mlp_dim=36, max_positions=40)), buffers=True
    )
    prompts = [torch.randint(3, 43, (length,)) for length in (6, 3, 1)]
    cached, plain = (generate(model, prompts, Sampling(8), use_cache=cache) for cache in (True, False))
    assert all(torch.equal(a, b) for a, b in zip(cached, plain, strict=True))
    with pytest.raises(ValueError, match="position 40; this decoder has 40 learned positions"):
        model(torch.zeros(1, 41, dtype=torch.long))


# ── Refused models ────────────────────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize(
    ("part", "change", "message"),
    [
        (None, {"model_type": "blip"}, "'blip'"),
        ("text_config", {"model_type": "t5"}, "'t5'"),
        ("text_config", {"do_layer_norm_before": False}, "do_layer_norm_before is False"),
        ("text_config", {"word_embed_proj_dim": 14}, "word_embed_proj_dim is 14"),
        ("qformer_config", {"hidden_act": "relu"}, "hidden_act is 'relu'"),
        ("qformer_config", {"use_qformer_text_input": True}, "those of a retriever"),
    ],
)
def test_another_model_is_refused(part, change, message, tmp_path):
    published_blip2("opt").save_pretrained(tmp_path)
    rewrite_config(tmp_path, lambda config: (config if part is None else config[part]).update(change))
    with pytest.raises(CourseError, match=message):
        Blip2.from_pretrained(tmp_path)


def test_other_encoders_and_connectors_cannot_be_saved_as_published(tmp_path):
    published_blip2("opt").save_pretrained(tmp_path / "published")
    model = Blip2.from_pretrained(tmp_path / "published")
    other = Blip2(torch.nn.Identity(), model.connector, model.language_model)
    with pytest.raises(CourseError, match="plain ViT"):
        other.save_pretrained(tmp_path / "other")
    other = Blip2(model.vision_encoder, torch.nn.Identity(), model.language_model)
    with pytest.raises(CourseError, match="has a Q-Former"):
        other.save_pretrained(tmp_path / "other")
    assert not (tmp_path / "other").exists()
