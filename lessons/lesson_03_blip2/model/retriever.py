"""The model of the first stage: what `Blip2ForImageTextRetrieval` publishes, and the training around it."""

import math
from pathlib import Path

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn
from torch.nn import functional as F

from lessons.lesson_01_vit.model import VisionTransformer
from lessons.lesson_03_blip2.model import huggingface
from lessons.lesson_03_blip2.model.config import RetrieverConfig
from lessons.lesson_03_blip2.model.huggingface_names import retriever_table
from lessons.lesson_03_blip2.model.losses import (
    contrastive_loss,
    matching_loss,
    negative_chances,
    similarities,
    writing_loss,
)
from lessons.lesson_03_blip2.model.masks import task_mask
from lessons.lesson_03_blip2.model.qformer import QFormer
from shared.attention import Mask
from shared.pretrained import load_weights, save_pretrained


class Retriever(nn.Module):
    """A frozen image encoder, the queries, the Q-Former, and words of its own: it compares, matches and, with a head, writes.

    vision  any module whose `features(images)` gives tokens [batch, patches, context_width]

    Texts are tokens [batch, text] with segments, 0 for a word and −1 for padding; their first token is the one that is
    read off in contrast. The methods take image *features*, so that a frozen encoder need look at each image only once.
    """

    def __init__(self, config: RetrieverConfig, vision: nn.Module):
        super().__init__()
        self.config, width = config, config.qformer.width
        self.vision = vision
        self.queries = nn.Parameter(torch.randn(config.queries, width) * 0.02)
        self.words = nn.Embedding(config.vocab_size, width)
        self.positions = nn.Embedding(config.max_text, width)
        self.qformer = QFormer(config.qformer)
        self.image_projection = nn.Linear(width, config.shared_width)
        self.text_projection = nn.Linear(width, config.shared_width)
        self.match = nn.Linear(width, 2)
        for table in (self.words, self.positions):
            nn.init.normal_(table.weight, std=0.02)

    def queries_of(self, features: Float[Tensor, "batch patches context"]) -> Float[Tensor, "batch queries width"]:
        """What the queries have gathered from each image."""
        queries = self.queries.expand(len(features), -1, -1)
        return self.qformer(queries, queries=self.config.queries, context=features)

    def together(
        self,
        task: str,
        features: Float[Tensor, "batch patches context"],
        tokens: Int[Tensor, "batch text"],
        segments: Int[Tensor, "batch text"],
    ) -> tuple[Float[Tensor, "batch queries width"], Float[Tensor, "batch text width"]]:
        """Queries and words after one pass under the mask of a task."""
        queries = self.config.queries
        x = torch.cat([self.queries.expand(len(features), -1, -1), self._embed(tokens)], dim=1)
        x = self.qformer(x, queries=queries, context=features, mask=task_mask(task, queries, segments))
        return x[:, :queries], x[:, queries:]

    def image_vectors(self, features: Float[Tensor, "batch patches context"]) -> Float[Tensor, "batch queries shared"]:
        """An image in the shared space: a vector of length 1 for each query."""
        return F.normalize(self.image_projection(self.queries_of(features)), dim=-1)

    def text_vectors(
        self, tokens: Int[Tensor, "batch text"], segments: Int[Tensor, "batch text"]
    ) -> Float[Tensor, "batch shared"]:
        """A text in the shared space: its first token, which has seen the others and no image."""
        mask = Mask(segment_q=segments, segment_k=segments)
        words = self.qformer(self._embed(tokens), queries=0, mask=mask)
        return F.normalize(self.text_projection(words[:, 0]), dim=-1)

    def match_logits(
        self,
        features: Float[Tensor, "batch patches context"],
        tokens: Int[Tensor, "batch text"],
        segments: Int[Tensor, "batch text"],
    ) -> Float[Tensor, "batch 2"]:
        """Does the text belong to the image? Logits of no and yes: each query that has read the text votes."""
        queries, _ = self.together("matching", features, tokens, segments)
        return self.match(queries).mean(dim=1)

    def forward(
        self,
        images: Float[Tensor, "images channels height width_px"],
        tokens: Int[Tensor, "texts text"],
        segments: Int[Tensor, "texts text"],
    ) -> Float[Tensor, "images texts"]:
        """The cosine of every image with every text."""
        return similarities(self.image_vectors(self.vision.features(images)), self.text_vectors(tokens, segments))

    def _embed(self, tokens: Int[Tensor, "batch text"]) -> Float[Tensor, "batch text width"]:
        if tokens.shape[1] > self.config.max_text:
            raise ValueError(f"a text of {tokens.shape[1]} tokens; this model reads at most {self.config.max_text}")
        return self.words(tokens) + self.positions.weight[: tokens.shape[1]]

    # ── Published checkpoints ─────────────────────────────────────────────────────────────────────────────────────

    @classmethod
    def from_pretrained(cls, folder: Path | str) -> "Retriever":
        """A published `Blip2ForImageTextRetrieval`, in evaluation mode. Raises CourseError when it is another model."""
        config, vision = huggingface.read_retriever(folder)
        model = cls(config, VisionTransformer(vision))
        load_weights(model, folder, retriever_table(vision))
        return model.eval()

    def save_pretrained(self, folder: Path | str) -> None:
        """Write the folder that `Blip2ForImageTextRetrieval` reads. Raises CourseError when the eye is no plain ViT."""
        vision = huggingface.plain_vision(self.vision)
        written = huggingface.write_retriever(self.config, vision)
        save_pretrained(folder, self, retriever_table(vision), written)


class FirstStage(nn.Module):
    """The first stage's training: one batch of pairs, three losses (section 3.2).

    writes_first  the token that tells the Q-Former to write; it takes the place of a text's first token

    The batch should hold no caption twice: two images that share a caption would be each other's false negatives.
    """

    def __init__(self, retriever: Retriever, writes_first: int):
        super().__init__()
        self.retriever, self.writes_first = retriever, writes_first
        width = retriever.config.qformer.width
        self.log_temperature = nn.Parameter(torch.tensor(math.log(0.07)))
        self.writer = nn.Linear(width, width)
        self.writer_norm = nn.LayerNorm(width)
        self.writer_bias = nn.Parameter(torch.zeros(retriever.config.vocab_size))

    def forward(
        self,
        features: Float[Tensor, "pairs patches context"],
        tokens: Int[Tensor, "pairs text"],
        segments: Int[Tensor, "pairs text"],
    ) -> tuple[Float[Tensor, ""], dict[str, Float[Tensor, ""]]]:
        """The sum of the three losses, and each by its name."""
        queries, words = self.retriever.together("contrastive", features, tokens, segments)
        images = F.normalize(self.retriever.image_projection(queries), dim=-1)
        texts = F.normalize(self.retriever.text_projection(words[:, 0]), dim=-1)
        scores = similarities(images, texts) / self.log_temperature.exp()
        losses = {
            "contrastive": contrastive_loss(scores),
            "matching": self._matching(scores, features, tokens, segments),
            "generation": writing_loss(self.write(features, tokens, segments), tokens, segments),
        }
        return sum(losses.values()), losses

    def _matching(self, scores: Tensor, features: Tensor, tokens: Tensor, segments: Tensor) -> Float[Tensor, ""]:
        """Each image with a text that nearly fits it, and each text with an image that nearly does, beside the true pairs."""
        other_texts = torch.multinomial(negative_chances(scores), 1).squeeze(1)
        other_images = torch.multinomial(negative_chances(scores.T), 1).squeeze(1)
        logits = self.retriever.match_logits(
            torch.cat([features, features, features[other_images]]),
            torch.cat([tokens, tokens[other_texts], tokens]),
            torch.cat([segments, segments[other_texts], segments]),
        )
        return matching_loss(logits[: len(features)], logits[len(features) :])

    def write(
        self,
        features: Float[Tensor, "batch patches context"],
        tokens: Int[Tensor, "batch text"],
        segments: Int[Tensor, "batch text"],
    ) -> Float[Tensor, "batch text vocab"]:
        """Logits of the word after each word: the words must get from the queries what they tell of the image."""
        begun = torch.cat([torch.full_like(tokens[:, :1], self.writes_first), tokens[:, 1:]], dim=1)
        _, words = self.retriever.together("generation", features, begun, segments)
        # BERT's head: think once more, then compare with every word's own vector.
        thought = self.writer_norm(F.gelu(self.writer(words)))
        return F.linear(thought, self.retriever.words.weight, self.writer_bias)
