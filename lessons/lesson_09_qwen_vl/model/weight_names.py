"""Names of the weights in published files of the Qwen-VL family.

Public files of Qwen2-VL and Qwen2.5-VL have `visual.` and `model.`; those of Qwen3-VL, and files that version 5 of
transformers writes, have `model.visual.` and `model.language_model.`. Both are read, and the public one is written.
"""

from lessons.lesson_00_foundations.decoder.model.language_model import BLOCK_WEIGHT_NAMES
from lessons.lesson_09_qwen_vl.model.config import QwenVLConfig
from shared.pretrained import Rearrange, Rename, Rule, Split, Tie, WeightNames, with_prefix

PARTS = ("query", "key", "value")
VISION_BLOCK: list[Rule] = [
    Rename("norm1.{leaf}", "attention_norm.{leaf}"),
    Rename("norm2.{leaf}", "mlp_norm.{leaf}"),
    Split("attn.qkv.weight", [f"attention.{part}.weight" for part in PARTS]),
    Split("attn.qkv.bias", [f"attention.{part}.bias" for part in PARTS]),
    Rename("attn.proj.{leaf}", "attention.output.{leaf}"),
]
VISION_MLP: dict[str, list[Rule]] = {
    "2": [Rename("mlp.fc1.{leaf}", "mlp.up.{leaf}"), Rename("mlp.fc2.{leaf}", "mlp.down.{leaf}")],
    "2.5": [Rename(f"mlp.{part}_proj.{{leaf}}", f"mlp.{part}.{{leaf}}") for part in ("gate", "up", "down")],
    "3": [Rename("mlp.linear_fc1.{leaf}", "mlp.up.{leaf}"), Rename("mlp.linear_fc2.{leaf}", "mlp.down.{leaf}")],
}
MERGER: dict[str, list[Rule]] = {
    "2": [
        Rename("ln_q.{leaf}", "norm.{leaf}"),
        Rename("mlp.0.{leaf}", "up.{leaf}"),
        Rename("mlp.2.{leaf}", "down.{leaf}"),
    ],
    "3": [
        Rename("norm.{leaf}", "norm.{leaf}"),
        Rename("linear_fc1.{leaf}", "up.{leaf}"),
        Rename("linear_fc2.{leaf}", "down.{leaf}"),
    ],
}
MERGER["2.5"] = MERGER["2"]
QK_NORMS: list[Rule] = [
    Rename("self_attn.q_norm.weight", "attention.query_norm.weight"),
    Rename("self_attn.k_norm.weight", "attention.key_norm.weight"),
]


def vision_rules(config: QwenVLConfig) -> list[Rule]:
    """Return the names of the vision encoder's weights without a prefix."""
    vision, generation = config.vision, config.generation
    patch = Rearrange(
        "width channels frames rows columns -> width (channels frames rows columns)",
        channels=vision.channels,
        frames=vision.frames_per_patch,
        rows=vision.patch_size,
        columns=vision.patch_size,
    )
    return [
        Rename("patch_embed.proj.weight", "patch_embedding.weight", patch),
        Rename("patch_embed.proj.bias", "patch_embedding.bias"),
        Rename("pos_embed.weight", "positions.weight"),
        *with_prefix("blocks.{n}.", "blocks.{n}.", [*VISION_BLOCK, *VISION_MLP[generation]]),
        *with_prefix("merger.", "merger.", MERGER[generation]),
        *with_prefix("deepstack_merger_list.{n}.", "deep_mergers.{n}.", MERGER[generation]),
    ]


def language_rules() -> list[Rule]:
    """Return the names of the language model's weights without a prefix; the output layer has a name of its own."""
    return [
        Rename("embed_tokens.weight", "embedding.weight"),
        *with_prefix("layers.{n}.", "blocks.{n}.", [*BLOCK_WEIGHT_NAMES, *QK_NORMS]),
        Rename("norm.weight", "norm.weight"),
    ]


def weight_names(config: QwenVLConfig) -> WeightNames:
    """Return the published name of each weight of a model of the family."""
    vision, language = vision_rules(config), language_rules()
    spellings = [
        [*with_prefix("visual.", "vision_encoder.", vision), *with_prefix("model.", "language_model.", language)],
        [
            *with_prefix("model.visual.", "vision_encoder.", vision),
            *with_prefix("model.language_model.", "language_model.", language),
        ],
    ]
    public, other = spellings[::-1] if config.generation == "3" else spellings
    tied = config.language.tied
    output = [] if tied else [Rename("lm_head.weight", "language_model.output.weight")]
    embeddings = ("model.embed_tokens.weight", "model.language_model.embed_tokens.weight")
    return WeightNames(
        [*public, *output],
        also_read=other,
        ties=[Tie("lm_head.weight", name) for name in embeddings] if tied else [],
    )
