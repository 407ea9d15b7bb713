"""The published classes that the course reads: a small config of each, our loader, and the outputs that must be equal.

Every family's `config` is the content of a `config.json`, so that the classes' own defaults apply to the rest.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import torch
import transformers
from torch import Tensor, nn

from lessons.lesson_00_foundations.decoder.model import LanguageModel
from lessons.lesson_01_vit.model import MaskedAutoencoder, VisionTransformer
from lessons.lesson_02_clip import model as lesson_2
from lessons.lesson_03_blip2.model import OPT, Blip2, QFormer, Retriever
from lessons.lesson_04_flamingo.model import Flamingo
from lessons.lesson_05_llava.model import Llava, LlavaNext
from lessons.lesson_06_any_resolution import model as lesson_6
from lessons.lesson_07_recipes.model.deepseek import DeepSeekV3
from lessons.lesson_07_recipes.model.gemma import Gemma
from lessons.lesson_07_recipes.model.mixtral import Mixtral
from lessons.lesson_07_recipes.model.paligemma import PaliGemma
from lessons.lesson_08_onevision.model import LlavaOneVision
from lessons.lesson_11_chameleon.model import Chameleon, VQEncoder, add_image_names
from lessons.lesson_12_emu3.model import Emu3, VisionTokenizer, vision_names

Outputs = list[Tensor]


@dataclass(frozen=True)
class Family:
    """One published class.

    name     of the class without "Config" and, in `model`, of the model's class
    walked   whose settings a test changes: None for those of the whole, else the key of a part of the config
    load     our loader of a folder
    outputs  of the published and of our model, given both, on the same random inputs
    """

    config_class: str
    model_class: str
    config: Mapping[str, Any]
    load: Callable[[Any], nn.Module]
    outputs: Callable[[Any, Any], tuple[Outputs, Outputs]]
    walked: tuple[str | None, ...] = (None,)

    def build_config(self, config: Mapping[str, Any]) -> Any:
        """Return the published class's own config. Raises what it raises for a value that it does not accept."""
        settings = {key: value for key, value in config.items() if key != "model_type"}
        return getattr(transformers, self.config_class)(**settings)

    def build(self, config: Mapping[str, Any]) -> nn.Module:
        """Return the published model of a config."""
        model = getattr(transformers, self.model_class)(self.build_config(config))
        # The default way to compute experts takes only sizes that are multiples of 16 bytes.
        model.set_experts_implementation("eager")
        return model


# ── Inputs and outputs ────────────────────────────────────────────────────────────────────────────────────────────────


def images_for(config: Any, count: int = 2) -> Tensor:
    size = config.image_size
    return torch.randn(count, getattr(config, "num_channels", 3), *((size, size) if isinstance(size, int) else size))


def tokens_for(config: Any, rows: int = 2, length: int = 8) -> Tensor:
    return torch.randint(5, config.vocab_size, (rows, length))


def language(published: Any, model: Any) -> tuple[Outputs, Outputs]:
    tokens = tokens_for(published.config)
    return [published(tokens, return_dict=True).logits], [model(tokens)]


def vision(published: Any, model: Any) -> tuple[Outputs, Outputs]:
    images = images_for(published.config)
    result = published(images, return_dict=True)
    return [result.last_hidden_state, result.pooler_output], [model.features(images), model(images)]


def encoder(published: Any, model: Any) -> tuple[Outputs, Outputs]:
    images = images_for(published.config)
    return [published(images, return_dict=True).pooler_output], [model(images)]


def classifier(published: Any, model: Any) -> tuple[Outputs, Outputs]:
    images = images_for(published.config)
    return [published(images, return_dict=True).logits], [model(images)]


def autoencoder(published: Any, model: Any) -> tuple[Outputs, Outputs]:
    images = images_for(published.config)
    noise = torch.rand(2, model.config.encoder.grid[0] * model.config.encoder.grid[1])
    expected, (loss, predictions, _) = published(images, noise=noise, return_dict=True), model(images, noise)
    return [expected.logits, expected.loss], [predictions, loss]


def text(published: Any, model: Any) -> tuple[Outputs, Outputs]:
    tokens = tokens_for(published.config)
    tokens[:, 5] = end_token(published.config)
    return [published(tokens, return_dict=True).pooler_output], [model(tokens)]


def end_token(config: Any) -> int:
    return (
        config.eos_token_id if isinstance(config.eos_token_id, int) and config.eos_token_id < config.vocab_size else 3
    )


def pair(published: Any, model: Any) -> tuple[Outputs, Outputs]:
    images, tokens = images_for(published.config.vision_config), tokens_for(published.config.text_config)
    tokens[:, 5] = end_token(published.config.text_config)
    return [published(tokens, images, return_dict=True).logits_per_image], [model(images, tokens)]


def patches_for(config: Any) -> lesson_6.PatchBatch:
    """Return a padded batch of images of different shapes."""
    side = config.patch_size
    shapes = ((2, 4), (3, 2), (1, 5))
    images = [torch.randn(config.num_channels, rows * side, columns * side) for rows, columns in shapes]
    return lesson_6.pad([lesson_6.ImagePatches.from_image(image, side) for image in images])


def naflex_arguments(batch: lesson_6.PatchBatch) -> dict[str, Tensor]:
    mask = (batch.segments >= 0).int()
    return {"pixel_values": batch.patches, "pixel_attention_mask": mask, "spatial_shapes": batch.grids}


def naflex(published: Any, model: Any) -> tuple[Outputs, Outputs]:
    batch = patches_for(published.config)
    expected = published(**naflex_arguments(batch), return_dict=True)
    outputs = [batch.split(expected.last_hidden_state), batch.split(model.features(batch))]
    if model.config.pooling == "none":
        return outputs[0], outputs[1]
    return [*outputs[0], expected.pooler_output], [*outputs[1], model(batch)]


def naflex_pair(published: Any, model: Any) -> tuple[Outputs, Outputs]:
    batch, tokens = patches_for(published.config.vision_config), tokens_for(published.config.text_config)
    expected = published(input_ids=tokens, **naflex_arguments(batch), return_dict=True)
    return [expected.logits_per_image], [model(batch, tokens)]


def qformer(published: Any, model: Any) -> tuple[Outputs, Outputs]:
    queries = torch.randn(2, 4, published.config.hidden_size)
    context = torch.randn(2, 5, published.config.encoder_hidden_size)
    expected = published(queries, query_length=4, encoder_hidden_states=context, return_dict=True).last_hidden_state
    return [expected], [model(queries, queries=4, context=context)]


def retriever(published: Any, model: Any) -> tuple[Outputs, Outputs]:
    images, tokens = images_for(published.config.vision_config), tokens_for(published.config.qformer_config)
    # With an image token, the published class drops as many tokens as there are queries.
    dropped = 0 if published.config.image_token_index is None else published.config.num_query_tokens
    padded = torch.cat([tokens[:, :1].expand(-1, dropped), tokens], dim=1)
    mask = torch.ones_like(padded)
    expected = published(images, padded, attention_mask=mask, return_dict=True).logits_per_image
    return [expected], [model(images, tokens, torch.zeros_like(tokens))]


def blip2(published: Any, model: Any) -> tuple[Outputs, Outputs]:
    config, queries = published.config, published.config.num_query_tokens
    images, tokens = images_for(config.vision_config), tokens_for(config.text_config)
    prompt = torch.cat([torch.full((2, queries), config.image_token_index), tokens], dim=1)
    expected = published(images, prompt, attention_mask=torch.ones_like(prompt), return_dict=True).logits
    return [expected[:, queries:]], [model(images, tokens)]


def idefics(published: Any, model: Any) -> tuple[Outputs, Outputs]:
    images, tokens = images_for(published.config.vision_config)[:, None], tokens_for(published.config)
    image_index = torch.zeros_like(tokens)
    expected = published(
        input_ids=tokens,
        pixel_values=images,
        image_attention_mask=torch.ones(2, 8, 1, dtype=torch.long),
        attention_mask=torch.ones_like(tokens),
        position_ids=torch.arange(8)[None].expand(2, -1),
        return_dict=True,
    ).logits
    return [expected], [model(tokens, model.encode_images(images), image_index)]


def llava(published: Any, model: Any) -> tuple[Outputs, Outputs]:
    images = images_for(published.config.vision_config)
    tokens = tokens_for(published.config.text_config)
    features = model.image_features(images)
    prompt = torch.cat([torch.full(features.shape[:2], model.image_token_id), tokens], dim=1)
    prompt[:, features.shape[1] :][tokens == model.image_token_id] = 0
    expected = published(input_ids=prompt, pixel_values=images, return_dict=True).logits
    return [expected], [model.logits(prompt, features)]


def llava_next(published: Any, model: Any) -> tuple[Outputs, Outputs]:
    tokens, size = tokens_for(published.config.text_config, 1), (10, 21)
    image = model.encode_image(torch.randn(published.config.vision_config.num_channels, *size))
    pixels = images_for(published.config.vision_config, len(image.features))
    image = model.encode_tiles(pixels, size)
    tokens = torch.where(tokens == model.image_token_id, 0, tokens)
    prompt = torch.cat([torch.full((1, model.image_tokens(size)), model.image_token_id), tokens], dim=1)
    sizes = torch.tensor([size])
    expected = published(input_ids=prompt, pixel_values=pixels[None], image_sizes=sizes, return_dict=True).logits
    return [expected], [model.logits(prompt, [image])]


def onevision(published: Any, model: Any) -> tuple[Outputs, Outputs]:
    """Compare one row with an image of several tiles and a video."""
    tokens, size = tokens_for(published.config.text_config, 1), (31, 33)
    image = model.encode_image(torch.randn(published.config.vision_config.num_channels, *size))
    pixels, frames = images_for(published.config.vision_config, len(image.features)), model.layout.tile_size
    frames = torch.randn(3, published.config.vision_config.num_channels, frames, frames)
    features = [model.encode_tiles(pixels, size), model.encode_video(frames)]
    ids, layout = model.placeholders, model.layout
    tokens[torch.isin(tokens, torch.tensor(ids))] = 0
    visuals = [ids.image] * layout.image_tokens(size) + [ids.video] * layout.video_tokens(3)
    prompt = torch.cat([torch.tensor([visuals]), tokens], dim=1)
    arguments = {"pixel_values": pixels[None], "image_sizes": torch.tensor([size]), "pixel_values_videos": frames[None]}
    expected = published(input_ids=prompt, **arguments, return_dict=True).logits
    return [expected], [model.logits(prompt, features)]


def paligemma(published: Any, model: Any) -> tuple[Outputs, Outputs]:
    images, text = images_for(published.config.vision_config), published.config.text_config
    tokens, features = tokens_for(text), model.image_features(images)
    tokens = torch.where(tokens == model.image_token_id, 0, tokens)
    prompt = torch.cat([torch.full(features.shape[:2], model.image_token_id), tokens], dim=1)
    token_type_ids = torch.ones_like(prompt)
    prefix = features.shape[1] + 3
    # The published class lets a prefix attend beyond the window, other than the authors' code (lesson 7 tests this).
    if getattr(text, "sliding_window", prefix) >= prefix:
        token_type_ids[:, :prefix] = 0
    expected = published(input_ids=prompt, pixel_values=images, token_type_ids=token_type_ids, return_dict=True).logits
    return [expected], [model.logits(prompt, features, token_type_ids)]


def chameleon(published: Any, model: Any) -> tuple[Outputs, Outputs]:
    images, tokens = vq_images_for(published.config.vq_config), tokens_for(published.config)
    # Token ids below 5 are not drawn.
    placeholders = torch.full((2, model.config.vocabulary.image_tokens), model.config.vocabulary.placeholder)
    prompt = torch.cat([placeholders, tokens], dim=1)
    return [published(input_ids=prompt, pixel_values=images, return_dict=True).logits], [model(prompt, images)]


def vq_images_for(config: Any) -> Tensor:
    return torch.randn(2, config.in_channels, config.resolution, config.resolution)


def codes(published: Any, model: Any) -> tuple[Outputs, Outputs]:
    images = vq_images_for(published.config)
    expected = published.encode(images)
    latents = published.quant_conv(expected.last_hidden_state)
    return [latents, expected.image_tokens], [model.latents(images), model(images).flatten()]


def emu3(published: Any, model: Any) -> tuple[Outputs, Outputs]:
    images, sizes = torch.randn(2, published.config.vq_config.in_channels, 6, 4), torch.tensor([[6, 4], [4, 4]])
    filled = torch.full((1, len(model.image_token_ids(images, sizes))), model.config.vocabulary.placeholder)
    # Token ids below 5 are not drawn, and the placeholder is one of them.
    prompt = torch.cat([filled, tokens_for(published.config.text_config, 1)], dim=1)
    expected = published(input_ids=prompt, pixel_values=images, image_sizes=sizes, return_dict=True).logits
    return [expected], [model(prompt, images, sizes)]


def emu3_codes(published: Any, model: Any) -> tuple[Outputs, Outputs]:
    config = published.config
    videos = torch.randn(2, 2 * config.temporal_downsample_factor, config.in_channels, 6, 4)
    # Of a video, the published class crops frames and rows.
    expected = published.encode(videos, torch.full((2, 2), 1000), return_dict=True)
    latents = published.quant_conv(expected.last_hidden_state.transpose(1, 2))
    codes = torch.randint(config.codebook_size, (2, 2, 3, 2))
    scale = latents.abs().max()  # up to several tens
    decoded = published.decode(codes)
    outputs = [latents / scale, torch.stack(expected.image_tokens), decoded / decoded.abs().max()]
    own = [model.latents(videos) / scale, model.encode_videos(videos), model.decode_videos(codes)]
    return outputs, [*own[:2], own[2] / decoded.abs().max()]


# ── Small configs, with sizes that all differ ─────────────────────────────────────────────────────────────────────────

BLOCKS = {"hidden_size": 12, "num_hidden_layers": 2, "num_attention_heads": 3, "intermediate_size": 10}
LLAMA = BLOCKS | {"vocab_size": 29, "num_key_value_heads": 1, "max_position_embeddings": 16}
OPT_SIZES = {"ffn_dim": 10, "vocab_size": 29, "max_position_embeddings": 24, "dropout": 0.0}
OPT_SIZES |= {key: BLOCKS[key] for key in ("hidden_size", "num_hidden_layers", "num_attention_heads")}
MIXTRAL = LLAMA | {"num_local_experts": 5, "num_experts_per_tok": 3, "head_dim": 4}
DEEPSEEK = LLAMA | {"num_key_value_heads": None, "q_lora_rank": 6, "kv_lora_rank": 5, "first_k_dense_replace": 1}
DEEPSEEK |= {"qk_nope_head_dim": 3, "qk_rope_head_dim": 4, "v_head_dim": 2, "moe_intermediate_size": 7}
DEEPSEEK |= {"n_routed_experts": 12, "num_experts_per_tok": 3, "n_group": 4, "topk_group": 2}
VISION = BLOCKS | {"image_size": 12, "patch_size": 3}
NAFLEX = BLOCKS | {"patch_size": 3, "num_patches": 16}
DINOV2 = {key: value for key, value in VISION.items() if key != "intermediate_size"} | {"mlp_ratio": 2}
DECODER = {"decoder_hidden_size": 8, "decoder_num_hidden_layers": 1, "decoder_num_attention_heads": 2}
TEXT = BLOCKS | {"vocab_size": 29, "max_position_embeddings": 9, "eos_token_id": 17}
QFORMER = BLOCKS | {"encoder_hidden_size": 12, "layer_norm_eps": 1e-5}
WITH_TEXT = {"use_qformer_text_input": True, "vocab_size": 29, "max_position_embeddings": 9}
BLIP2 = {"vision_config": VISION, "qformer_config": QFORMER, "num_query_tokens": 2, "image_token_index": 3}
PERCEIVER = {"resampler_n_latents": 3, "resampler_depth": 1, "resampler_n_heads": 2, "resampler_head_dim": 5}
IDEFICS = {key: value for key, value in LLAMA.items() if key != "num_key_value_heads"} | {"use_resampler": True}
IDEFICS |= {"additional_vocab_size": 2, "perceiver_config": PERCEIVER | {"use_resampler": True}}
IDEFICS |= {"vision_config": {("embed_dim" if key == "hidden_size" else key): value for key, value in VISION.items()}}
LLAVA = {"model_type": "llava", "image_token_index": 28, "vision_config": VISION, "text_config": LLAMA}
GEMMA = LLAMA | {"head_dim": 8}
GEMMA2 = GEMMA | {"sliding_window": 5, "query_pre_attn_scalar": 11}
PALIGEMMA = {"image_token_index": 28, "projection_dim": 12, "vision_config": VISION | {"vision_use_head": False}}
NEXT = LLAVA | {"model_type": "llava_next", "image_grid_pinpoints": [[12, 24], [24, 12]]}

ONEVISION = LLAVA | {"model_type": "llava_onevision", "video_token_index": 27, "vision_aspect_ratio": "anyres_max_3"}
ONEVISION |= {"image_grid_pinpoints": [[12, 24], [24, 12], [36, 36]]}

VQ = {"resolution": 6, "base_channels": 32, "channel_multiplier": [1, 2], "num_res_blocks": 1, "latent_channels": 7}
VQ |= {"embed_dim": 5, "num_embeddings": 13}
CHAMELEON = LLAMA | {"vq_config": VQ, "vocabulary_map": add_image_names({}, 13) | {"text": 20}}

EMU3_VQ = {"base_channels": 32, "channel_multiplier": [1, 2], "num_res_blocks": 1, "hidden_size": 64}
EMU3_VQ |= {"embed_dim": 5, "latent_channels": 5, "codebook_size": 13, "temporal_downsample_factor": 2}
EMU3_VQ |= {"attn_resolutions": [1]}
EMU3_NAMES = {name: place for place, name in enumerate(vision_names(13))}
EMU3_TEXT = LLAMA | {"pad_token_id": 3, "max_position_embeddings": 32}
EMU3 = {"vq_config": EMU3_VQ, "text_config": EMU3_TEXT, "vocabulary_map": EMU3_NAMES}


def over(language_model: str, config: Mapping[str, Any]) -> dict[str, Any]:
    return dict(config) | {"text_config": {"model_type": language_model} | LLAMA}


FAMILIES = {
    "llama": Family("LlamaConfig", "LlamaForCausalLM", LLAMA, LanguageModel.from_pretrained, language),
    "qwen2": Family("Qwen2Config", "Qwen2ForCausalLM", LLAMA, LanguageModel.from_pretrained, language),
    "mixtral": Family("MixtralConfig", "MixtralForCausalLM", MIXTRAL, Mixtral.from_pretrained, language),
    "deepseek": Family("DeepseekV3Config", "DeepseekV3ForCausalLM", DEEPSEEK, DeepSeekV3.from_pretrained, language),
    "opt": Family("OPTConfig", "OPTForCausalLM", OPT_SIZES, OPT.from_pretrained, language),
    "vit": Family("ViTConfig", "ViTModel", VISION, VisionTransformer.from_pretrained, vision),
    "vit classifier": Family(
        "ViTConfig", "ViTForImageClassification", VISION, VisionTransformer.from_pretrained, classifier
    ),
    "deit": Family(
        "DeiTConfig", "DeiTForImageClassificationWithTeacher", VISION, VisionTransformer.from_pretrained, classifier
    ),
    "mae": Family(
        "ViTMAEConfig", "ViTMAEForPreTraining", VISION | DECODER, MaskedAutoencoder.from_pretrained, autoencoder
    ),
    "dinov2": Family("Dinov2Config", "Dinov2Model", DINOV2, VisionTransformer.from_pretrained, vision),
    "dinov2 with registers": Family(
        "Dinov2WithRegistersConfig", "Dinov2WithRegistersModel", DINOV2, VisionTransformer.from_pretrained, vision
    ),
    "clip vision": Family("CLIPVisionConfig", "CLIPVisionModel", VISION, lesson_2.read_vision_encoder, encoder),
    "clip text": Family("CLIPTextConfig", "CLIPTextModel", TEXT, lesson_2.TextEncoder.from_pretrained, text),
    "clip": Family(
        "CLIPConfig",
        "CLIPModel",
        {"vision_config": VISION, "text_config": TEXT, "projection_dim": 6},
        lesson_2.CLIP.from_pretrained,
        pair,
        (None, "vision_config", "text_config"),
    ),
    "siglip vision": Family("SiglipVisionConfig", "SiglipVisionModel", VISION, lesson_2.read_vision_encoder, encoder),
    "siglip": Family(
        "SiglipConfig",
        "SiglipModel",
        {"vision_config": VISION, "text_config": TEXT},
        lesson_2.SigLIP.from_pretrained,
        pair,
        (None, "vision_config", "text_config"),
    ),
    "siglip2 vision": Family(
        "Siglip2VisionConfig", "Siglip2VisionModel", NAFLEX, lesson_6.NaViT.from_pretrained, naflex
    ),
    "siglip2": Family(
        "Siglip2Config",
        "Siglip2Model",
        {"vision_config": NAFLEX, "text_config": TEXT},
        lesson_6.SigLIP2.from_pretrained,
        naflex_pair,
        (None, "vision_config", "text_config"),
    ),
    "qformer": Family("Blip2QFormerConfig", "Blip2QFormerModel", QFORMER, QFormer.from_pretrained, qformer),
    "retriever": Family(
        "Blip2Config",
        "Blip2ForImageTextRetrieval",
        {key: value for key, value in BLIP2.items() if key != "image_token_index"}
        | {"qformer_config": QFORMER | WITH_TEXT, "text_config": OPT_SIZES | {"model_type": "opt"}},
        Retriever.from_pretrained,
        retriever,
        (None, "vision_config", "qformer_config"),
    ),
    "blip2 over opt": Family(
        "Blip2Config",
        "Blip2ForConditionalGeneration",
        BLIP2 | {"text_config": OPT_SIZES | {"model_type": "opt"}},
        Blip2.from_pretrained,
        blip2,
        (None, "text_config"),
    ),
    "blip2 over llama": Family(
        "Blip2Config",
        "Blip2ForConditionalGeneration",
        over("llama", BLIP2),
        Blip2.from_pretrained,
        blip2,
        ("text_config",),
    ),
    "blip2 over qwen2": Family(
        "Blip2Config",
        "Blip2ForConditionalGeneration",
        over("qwen2", BLIP2),
        Blip2.from_pretrained,
        blip2,
        ("text_config",),
    ),
    "idefics": Family(
        "IdeficsConfig",
        "IdeficsForVisionText2Text",
        IDEFICS,
        Flamingo.from_pretrained,
        idefics,
        (None, "vision_config", "perceiver_config"),
    ),
    "llava over llama": Family(
        "LlavaConfig",
        "LlavaForConditionalGeneration",
        over("llama", LLAVA),
        Llava.from_pretrained,
        llava,
        (None, "vision_config", "text_config"),
    ),
    "llava over qwen2": Family(
        "LlavaConfig",
        "LlavaForConditionalGeneration",
        over("qwen2", LLAVA),
        Llava.from_pretrained,
        llava,
        ("text_config",),
    ),
    "chameleon": Family(
        "ChameleonConfig",
        "ChameleonForConditionalGeneration",
        CHAMELEON,
        Chameleon.from_pretrained,
        chameleon,
        (None, "vq_config"),
    ),
    "chameleon codes": Family("ChameleonVQVAEConfig", "ChameleonVQVAE", VQ, VQEncoder.from_pretrained, codes),
    "emu3": Family(
        "Emu3Config",
        "Emu3ForConditionalGeneration",
        EMU3,
        Emu3.from_pretrained,
        emu3,
        (None, "text_config", "vq_config"),
    ),
    "emu3 codes": Family("Emu3VQVAEConfig", "Emu3VQVAE", EMU3_VQ, VisionTokenizer.from_pretrained, emu3_codes),
    "gemma": Family("GemmaConfig", "GemmaForCausalLM", GEMMA, Gemma.from_pretrained, language),
    "gemma2": Family("Gemma2Config", "Gemma2ForCausalLM", GEMMA2, Gemma.from_pretrained, language),
    "paligemma over gemma": Family(
        "PaliGemmaConfig",
        "PaliGemmaForConditionalGeneration",
        PALIGEMMA | {"text_config": GEMMA},
        PaliGemma.from_pretrained,
        paligemma,
        (None, "vision_config", "text_config"),
    ),
    "paligemma over gemma2": Family(
        "PaliGemmaConfig",
        "PaliGemmaForConditionalGeneration",
        PALIGEMMA | {"text_config": GEMMA2 | {"model_type": "gemma2", "sliding_window": 20}},
        PaliGemma.from_pretrained,
        paligemma,
        ("text_config",),
    ),
    "llava-next over llama": Family(
        "LlavaNextConfig",
        "LlavaNextForConditionalGeneration",
        over("llama", NEXT),
        LlavaNext.from_pretrained,
        llava_next,
        (None, "text_config"),
    ),
    "llava-onevision over qwen2": Family(
        "LlavaOnevisionConfig",
        "LlavaOnevisionForConditionalGeneration",
        over("qwen2", ONEVISION),
        LlavaOneVision.from_pretrained,
        onevision,
        (None, "vision_config", "text_config"),
    ),
    "llava-onevision over llama": Family(
        "LlavaOnevisionConfig",
        "LlavaOnevisionForConditionalGeneration",
        over("llama", ONEVISION),
        LlavaOneVision.from_pretrained,
        onevision,
        ("text_config",),
    ),
}
