"""Judge generated toy-world images: predict the place and appearance of every object; README.md has an example.

model        the network, and its predictions per place
labels       scenes ↔ labels per place
pixels       images of any size and number format as the network's input
predictions  the scenes that the judge predicts for images, and its features
comparison   accuracy of predicted scenes
scores       scores of generated images, each beside that of real renders
training     the training on rendered scenes
checkpoint   `make checkpoint-judge`
pretrained   the shipped judge
"""

from shared.judge.comparison import compare_scenes
from shared.judge.model import Judge, JudgeConfig
from shared.judge.predictions import image_features, predict_scenes
from shared.judge.pretrained import load_judge
from shared.judge.scores import Score, score_distance, score_images

__all__ = [
    "Judge",
    "JudgeConfig",
    "Score",
    "compare_scenes",
    "image_features",
    "load_judge",
    "predict_scenes",
    "score_distance",
    "score_images",
]
