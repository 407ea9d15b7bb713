"""Equality with the published classes, both ways, in configurations odd enough that nothing is equal by accident.

Every parameter is redrawn at random first: at their initial values the queries are zero and half of the rest has no effect.
"""

import json

import pytest
import torch
from safetensors.torch import load_file, save_file
from transformers import (
    Blip2Config,
    Blip2ForConditionalGeneration,
    Blip2ForImageTextRetrieval,
    Blip2QFormerConfig,
    Blip2QFormerModel,
    Blip2VisionConfig,
    LlamaConfig,
    OPTConfig,
    OPTForCausalLM,
)

from lessons.lesson_03_blip2.model import OPT, Blip2, QFormer, Retriever, huggingface, opt_config
from shared.errors import CourseError
from shared.transformer import Sampling, generate

VISION = {"hidden_size": 20, "intermediate_size": 28, "num_hidden_layers": 2, "num_attention_heads": 5, "patch_size": 3}
QFORMER = {"hidden_size": 24, "intermediate_size": 28, "num_attention_heads": 3, "layer_norm_eps": 1e-3}
WORDS = {"vocab_size": 37, "max_position_embeddings": 19, "use_qformer_text_input": True}
OPT_SIZES = {"hidden_size": 28, "num_hidden_layers": 2, "ffn_dim": 36, "num_attention_heads": 4}
QUERIES, IMAGE_TOKEN = 5, 41


def redrawn(model):
    """Every parameter and saved buffer; what follows from the config (rotary frequencies) is no weight."""
    with torch.no_grad():
        for parameter in model.state_dict(keep_vars=True).values():
            parameter.copy_(torch.randn_like(parameter) * 0.3 + (0.5 if parameter.ndim == 1 else 0.0))
    return model.eval()


def close(given, expected):
    assert expected.abs().max() > 0.05
    torch.testing.assert_close(given, expected, atol=1e-4, rtol=0)


def assert_same_files(folder):
    before, after = (load_file(folder / side / "model.safetensors") for side in ("theirs", "ours"))
    assert before.keys() == after.keys()
    assert all(torch.equal(before[name], after[name]) for name in before)


def back_again(kind, folder):
    again, report = kind.from_pretrained(folder, output_loading_info=True)
    assert not any(report.values()), report
    return again.eval()


def rewrite_config(folder, change):
    config = json.loads((folder / "config.json").read_text())
    change(config)
    (folder / "config.json").write_text(json.dumps(config))


# ── The Q-Former ──────────────────────────────────────────────────────────────────────────────────────────────────────

QFORMERS = {
    "every other block": {"num_hidden_layers": 3},
    "every third block": {"num_hidden_layers": 5, "cross_attention_frequency": 3},
    "every block": {"num_hidden_layers": 2, "cross_attention_frequency": 1},
    "with text": {"num_hidden_layers": 3, "use_qformer_text_input": True},
}


def assert_same_qformer(theirs, ours):
    context = torch.randn(2, 7, 20)
    with torch.no_grad():
        for queries, words in ((4, 0), (1, 0), (4, 3), (0, 3)):
            if words and not theirs.config.use_qformer_text_input:
                continue
            x = torch.randn(2, queries + words, 24)
            expected = theirs(x, query_length=queries, encoder_hidden_states=context if queries else None)
            given = ours(x, queries=queries, context=context if queries else None)
            close(given, expected.last_hidden_state)


@pytest.mark.parametrize("case", QFORMERS)
def test_qformer_both_ways(case, tmp_path):
    theirs = redrawn(Blip2QFormerModel(Blip2QFormerConfig(**QFORMER, encoder_hidden_size=20, **QFORMERS[case])))
    theirs.save_pretrained(tmp_path / "theirs")
    ours = QFormer.from_pretrained(tmp_path / "theirs")
    assert_same_qformer(theirs, ours)
    ours.save_pretrained(tmp_path / "ours")
    assert_same_files(tmp_path)
    assert_same_qformer(back_again(Blip2QFormerModel, tmp_path / "ours"), ours)


def test_where_the_queries_look_is_what_the_published_class_records(tmp_path):
    config = Blip2QFormerConfig(**QFORMER, encoder_hidden_size=20, num_hidden_layers=3)
    theirs = redrawn(Blip2QFormerModel._from_config(config, attn_implementation="eager"))
    theirs.save_pretrained(tmp_path)
    ours = QFormer.from_pretrained(tmp_path)
    queries, context = torch.randn(2, 4, 24), torch.randn(2, 7, 20)
    with torch.no_grad():
        expected = theirs(queries, encoder_hidden_states=context, output_attentions=True).cross_attentions
    given = ours.cross_attention_maps(queries, context)
    assert len(given) == len(expected) == 2
    for here, there in zip(given, expected, strict=True):
        torch.testing.assert_close(here.float(), there, atol=1e-5, rtol=0)


# ── Image–text retrieval ──────────────────────────────────────────────────────────────────────────────────────────────


def retriever(**vision):
    config = Blip2Config(
        vision_config=Blip2VisionConfig(**VISION, image_size=12, **vision),
        qformer_config=Blip2QFormerConfig(**QFORMER, num_hidden_layers=3, **WORDS),
        num_query_tokens=QUERIES,
        image_text_hidden_size=11,
    )
    return redrawn(Blip2ForImageTextRetrieval(config))


def assert_same_retriever(theirs, ours):
    images, tokens = torch.randn(3, 3, 12, 12), torch.randint(1, 37, (3, 8))
    segments = torch.tensor([[0] * 8, [0] * 5 + [-1] * 3, [0] * 2 + [-1] * 6])
    seen = (segments >= 0).long()
    with torch.no_grad():
        compared = theirs(images, tokens, attention_mask=seen)
        matched = theirs(images, tokens, attention_mask=seen, use_image_text_matching_head=True)
        features = ours.vision.features(images)
        close(features, compared.vision_model_output.last_hidden_state)
        close(ours.image_vectors(features), compared.image_embeds)
        close(ours.text_vectors(tokens, segments), compared.text_embeds)
        close(ours(images, tokens, segments), compared.logits_per_image)
        close(ours.match_logits(features, tokens, segments), matched.logits_per_image)


@pytest.mark.parametrize("vision", [{}, {"qkv_bias": False}, {"layer_norm_eps": 0.1}], ids=["plain", "no bias", "eps"])
def test_retriever_both_ways(vision, tmp_path):
    theirs = retriever(**vision)
    theirs.save_pretrained(tmp_path / "theirs")
    ours = Retriever.from_pretrained(tmp_path / "theirs")
    assert_same_retriever(theirs, ours)
    ours.save_pretrained(tmp_path / "ours")
    assert_same_files(tmp_path)
    assert_same_retriever(back_again(Blip2ForImageTextRetrieval, tmp_path / "ours"), ours)


def test_files_of_version_4_also_number_their_places(tmp_path):
    theirs = retriever()
    theirs.save_pretrained(tmp_path)
    tensors = load_file(tmp_path / "model.safetensors")
    save_file(tensors | {"embeddings.position_ids": torch.arange(19)[None]}, tmp_path / "model.safetensors")
    assert_same_retriever(theirs, Retriever.from_pretrained(tmp_path))


# ── Writing ───────────────────────────────────────────────────────────────────────────────────────────────────────────

LANGUAGES = {
    "opt": OPTConfig(**OPT_SIZES, vocab_size=43, max_position_embeddings=40),
    "llama": LlamaConfig(
        vocab_size=43,
        hidden_size=28,
        num_hidden_layers=2,
        intermediate_size=36,
        num_attention_heads=7,
        num_key_value_heads=1,
        rms_norm_eps=1e-3,
        rope_parameters={"rope_type": "default", "rope_theta": 500.0},
    ),
}


def writer(language):
    config = Blip2Config(
        vision_config=Blip2VisionConfig(**VISION, image_size=12),
        qformer_config=Blip2QFormerConfig(**QFORMER, num_hidden_layers=3),
        text_config=LANGUAGES[language],
        num_query_tokens=QUERIES,
        image_token_index=IMAGE_TOKEN,
    )
    return redrawn(Blip2ForConditionalGeneration(config))


def their_logits(theirs, images, tokens, segments):
    """Theirs reads the image where its token stands, once for each query: we put those in front, as its processor does."""
    places = torch.full((len(tokens), QUERIES), IMAGE_TOKEN)
    seen = torch.cat([torch.ones_like(places), (segments >= 0).long()], dim=1)
    with torch.no_grad():
        out = theirs(images, torch.cat([places, tokens], dim=1), attention_mask=seen)
    return out.logits[:, QUERIES:]


def assert_same_writer(theirs, ours):
    images, tokens = torch.randn(3, 3, 12, 12), torch.randint(3, 40, (3, 6))
    segments = torch.tensor([[0] * 6, [0] * 4 + [-1] * 2, [0] + [-1] * 5])
    expected = their_logits(theirs, images, tokens, segments)
    with torch.no_grad():
        given = ours(images, tokens, segments)
    close(given[segments >= 0], expected[segments >= 0])
    close(ours(images, tokens).detach(), their_logits(theirs, images, tokens, torch.zeros_like(segments)))


@pytest.mark.parametrize("language", LANGUAGES)
def test_writer_both_ways(language, tmp_path):
    theirs = writer(language)
    theirs.save_pretrained(tmp_path / "theirs")
    ours = Blip2.from_pretrained(tmp_path / "theirs")
    assert_same_writer(theirs, ours)
    ours.save_pretrained(tmp_path / "ours", image_token=IMAGE_TOKEN)
    assert_same_files(tmp_path)
    assert_same_writer(back_again(Blip2ForConditionalGeneration, tmp_path / "ours"), ours)


@pytest.mark.parametrize("language", LANGUAGES)
def test_it_writes_what_the_published_class_writes(language, tmp_path):
    theirs = writer(language)
    theirs.save_pretrained(tmp_path)
    ours = Blip2.from_pretrained(tmp_path)
    images, prompts = torch.randn(2, 3, 12, 12), torch.randint(3, 40, (2, 4))
    places = torch.full((2, QUERIES), IMAGE_TOKEN)
    expected = theirs.generate(
        images, torch.cat([places, prompts], dim=1), max_new_tokens=9, min_new_tokens=9, do_sample=False
    )
    given = ours.answer(ours.vision.features(images), list(prompts), Sampling(9))
    assert torch.equal(torch.stack(given), expected[:, -9:])
    assert len(set(torch.cat(given).tolist())) > 1


def test_public_files_hold_the_tied_head_and_say_less(tmp_path):
    """As the public weights of 2023: the head stored twice, no image token, no `dtype`, defaults left out."""
    theirs = writer("opt")
    theirs.save_pretrained(tmp_path)
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
    assert_same_writer(theirs, Blip2.from_pretrained(tmp_path))

    save_file(tensors | {"language_model.lm_head.weight": head + 1}, tmp_path / "model.safetensors")
    with pytest.raises(CourseError, match=r"untied: language_model\.lm_head\.weight"):
        Blip2.from_pretrained(tmp_path)


def test_the_public_sizes():
    """What the config of the public weights leaves out is what the classes assume: EVA's 39 blocks, 32 queries of BERT-base."""
    ours = huggingface.read_settings(huggingface.VISION_SETTINGS, {})
    theirs = Blip2VisionConfig()
    assert (ours["width"], ours["depth"], ours["mlp_dim"]) == (1408, 39, 6144)
    assert ours["norm_eps"] == theirs.layer_norm_eps
    qformer, theirs = huggingface.read_settings(huggingface.QFORMER_SETTINGS, {}), Blip2QFormerConfig()
    assert (qformer["width"], qformer["depth"], qformer["cross_every"]) == (768, 12, 2)
    assert qformer["norm_eps"] == theirs.layer_norm_eps
    assert Blip2Config().num_query_tokens == 32


# ── OPT by itself ─────────────────────────────────────────────────────────────────────────────────────────────────────


def assert_same_opt(theirs, ours):
    tokens = torch.randint(3, 43, (3, 7))
    segments = torch.tensor([[0] * 7, [0] * 5 + [-1] * 2, [0] * 2 + [-1] * 5])
    with torch.no_grad():
        close(ours(tokens), theirs(tokens).logits)
        expected = theirs(tokens, attention_mask=(segments >= 0).long()).logits
        close(ours(tokens, segments=segments)[segments >= 0], expected[segments >= 0])


@pytest.mark.parametrize("oldest", [False, True], ids=["names of today", "oldest names"])
def test_opt_both_ways(oldest, tmp_path):
    theirs = redrawn(OPTForCausalLM(LANGUAGES["opt"]))
    theirs.save_pretrained(tmp_path / "theirs")
    if oldest:
        file = tmp_path / "theirs" / "model.safetensors"
        save_file({name.removeprefix("model."): tensor for name, tensor in load_file(file).items()}, file)
    ours = OPT.from_pretrained(tmp_path / "theirs")
    assert_same_opt(theirs, ours)
    ours.save_pretrained(tmp_path / "ours")
    assert_same_opt(back_again(OPTForCausalLM, tmp_path / "ours"), ours)


def test_opt_writes_the_same_with_a_cache_and_without():
    ours = redrawn(OPT(opt_config(vocab_size=43, width=28, depth=2, heads=4, mlp_dim=36, max_positions=40)))
    prompts = [torch.randint(3, 43, (length,)) for length in (6, 3, 1)]
    cached, plain = (generate(ours, prompts, Sampling(8), use_cache=cache) for cache in (True, False))
    assert all(torch.equal(a, b) for a, b in zip(cached, plain, strict=True))
    with pytest.raises(ValueError, match="position 40; this decoder has 40 learned positions"):
        ours(torch.zeros(1, 41, dtype=torch.long))


# ── What does not fit ─────────────────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize(
    ("part", "change", "message"),
    [
        (None, {"model_type": "blip"}, "'blip'"),
        ("text_config", {"model_type": "t5"}, "'t5'"),
        ("text_config", {"do_layer_norm_before": False}, "do_layer_norm_before is False"),
        ("text_config", {"word_embed_proj_dim": 14}, "word_embed_proj_dim 14"),
        ("qformer_config", {"hidden_act": "relu"}, "hidden_act is 'relu'"),
        ("qformer_config", {"use_qformer_text_input": True}, "those of a retriever"),
    ],
)
def test_another_model_is_refused(part, change, message, tmp_path):
    writer("opt").save_pretrained(tmp_path)
    rewrite_config(tmp_path, lambda config: (config if part is None else config[part]).update(change))
    with pytest.raises(CourseError, match=message):
        Blip2.from_pretrained(tmp_path)


def test_another_eye_or_bridge_cannot_be_saved_as_a_published_one(tmp_path):
    writer("opt").save_pretrained(tmp_path / "theirs")
    ours = Blip2.from_pretrained(tmp_path / "theirs")
    other = Blip2(torch.nn.Identity(), ours.bridge, ours.language)
    with pytest.raises(CourseError, match="plain ViT"):
        other.save_pretrained(tmp_path / "other")
    other = Blip2(ours.vision, torch.nn.Identity(), ours.language)
    with pytest.raises(CourseError, match="has a Q-Former"):
        other.save_pretrained(tmp_path / "other")
    assert not (tmp_path / "other").exists()
