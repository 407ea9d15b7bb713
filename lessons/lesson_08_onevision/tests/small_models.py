"""Small published LLaVA-OneVisions with odd sizes, and the same inputs for the published class and for ours."""

import torch
from transformers import LlamaConfig, LlavaOnevisionConfig, LlavaOnevisionForConditionalGeneration, Qwen2Config

from lessons.lesson_08_onevision.model import ImageInput, VideoInput, build_sequence
from shared.testing import redraw_weights

SIDE = 14  # pixels of a tile; patches of 4 pixels leave two pixels over: 3 × 3 patches
IMAGE, VIDEO = 41, 38
VISION = {
    "model_type": "siglip_vision_model",
    "hidden_size": 20,
    "intermediate_size": 28,
    "num_hidden_layers": 3,
    "num_attention_heads": 5,
    "patch_size": 4,
    "image_size": SIDE,
    "layer_norm_eps": 1e-3,
    "vision_use_head": False,
}
TEXT = {
    "vocab_size": 43,
    "hidden_size": 24,
    "num_hidden_layers": 2,
    "intermediate_size": 36,
    "num_attention_heads": 6,
    "num_key_value_heads": 2,
    "rms_norm_eps": 1e-3,
}
LANGUAGES = {
    "qwen2": Qwen2Config(**TEXT),
    "tied qwen2": Qwen2Config(**TEXT, tie_word_embeddings=True),
    "llama": LlamaConfig(**TEXT, rope_parameters={"rope_type": "default", "rope_theta": 500.0}),
}
PINPOINTS = [[rows * SIDE, columns * SIDE] for rows in (1, 2, 3) for columns in (1, 2, 3, 5)]
CHOICES = {
    "qwen2": {"vision_aspect_ratio": "anyres_max_2"},
    "tied qwen2": {"vision_feature_layer": [0, -2], "multimodal_projector_bias": False},
    "llama": {"vision_feature_layer": 2, "vision_aspect_ratio": "anyres_max_1", "image_grid_pinpoints": PINPOINTS[1:]},
}
SIZES = {
    "wide": (10, 29),
    "tall": (51, 9),
    "square": (17, 17),
    "odd": (23, 31),
    "larger than all": (300, 430),
    "small": (3, 4),
    "one pixel": (1, 1),
    "one row": (1, 5000),
    "one column": (5000, 1),
}


def published_model(language="qwen2", **changes):
    torch.manual_seed(3)
    config = LlavaOnevisionConfig(
        vision_config=dict(VISION),
        text_config=LANGUAGES[language],
        image_token_index=IMAGE,
        video_token_index=VIDEO,
        **{"image_grid_pinpoints": PINPOINTS} | CHOICES[language] | changes,
    )
    return redraw_weights(LlavaOnevisionForConditionalGeneration(config), buffers=True)


def text(count):
    return torch.randint(3, 37, (count,)).tolist()


def published_logits(published, rows):
    """Return the logits of each row [(token ids, [tiles, size], [frames])] of the published class, one row a time."""
    outputs = []
    for token_ids, images, videos in rows:
        arguments = {}
        if images:
            most = max(len(tiles) for tiles, _ in images)
            pixels = torch.zeros(len(images), most, *images[0][0].shape[1:])
            for place, (tiles, _) in enumerate(images):
                pixels[place, : len(tiles)] = tiles
            arguments["pixel_values"] = pixels
            arguments["image_sizes"] = torch.tensor([size for _, size in images])
            arguments["batch_num_images"] = torch.tensor([len(images)])
        for frames in videos:
            # The class stacks videos, so several of one row have equally many frames.
            arguments["pixel_values_videos"] = torch.stack(videos) if len(videos) > 1 else frames[None]
        outputs.append(published(input_ids=token_ids[None], **arguments).logits[0])
    return outputs


def example(model, sizes, frames=()):
    """Return a row of text with images of these sizes and videos of these lengths, and its features in our model."""
    channels, side = model.vision_encoder.config.channels, model.layout.tile_size
    visuals = [*map(ImageInput, sizes), *map(VideoInput, frames)]
    order = torch.randperm(len(visuals)).tolist() if frames else range(len(visuals))
    parts = [text(3)]
    for place in order:
        parts += [visuals[place], text(2)]
    sequence = build_sequence(parts, model.layout, model.placeholders)
    features, images, videos = [], [], []
    for visual in sequence.visuals:
        if isinstance(visual, VideoInput):
            videos.append(torch.randn(visual.frames, channels, side, side))
            features.append(model.encode_video(videos[-1]))
        else:
            rows, columns = model.layout.tiles(visual.size)
            count = rows * columns + 1 if len(sizes) == 1 else 1
            images.append((torch.randn(count, channels, side, side), visual.size))
            features.append(model.encode_tiles(images[-1][0], visual.size))
    return (sequence.token_ids, images, videos), features
