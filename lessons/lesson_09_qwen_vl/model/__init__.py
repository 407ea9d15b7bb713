"""The Qwen-VL family in PyTorch. Read the files in this order:

config.py            settings of the three generations
patches.py           frames → patches in merge order
positions.py         M-RoPE: three ids per token, and the rotary angles
merger.py            2 × 2 patches → one token
window_attention.py  attention in windows (Qwen2.5-VL): the order of tokens, and back
vision_encoder.py    the whole vision encoder
deepstack.py         features of lower blocks enter the language model (Qwen3-VL)
prompt.py, qwen_vl.py   prompts of text, images and videos; the whole model; answers
sampling.py          which frames of a video, at which size, and their times
grounding.py         boxes as text, a parser for them, IoU and F1
image_processing.py  photographs → patches, as the published image processor computes them
config_mapping.py, weight_names.py   settings and weight names of published checkpoints
"""

from lessons.lesson_09_qwen_vl.model.config import QwenVLConfig, VisionConfig
from lessons.lesson_09_qwen_vl.model.patches import VisualInput
from lessons.lesson_09_qwen_vl.model.positions import largest_id, mrope_ids, visual_ids
from lessons.lesson_09_qwen_vl.model.prompt import Prompt
from lessons.lesson_09_qwen_vl.model.qwen_vl import QwenVL
from lessons.lesson_09_qwen_vl.model.vision_encoder import VisionEncoder

__all__ = [
    "Prompt",
    "QwenVL",
    "QwenVLConfig",
    "VisionConfig",
    "VisionEncoder",
    "VisualInput",
    "largest_id",
    "mrope_ids",
    "visual_ids",
]
