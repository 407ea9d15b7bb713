"""The model of BLIP-2's first stage, published as `Blip2ForImageTextRetrieval`, and its three training losses."""

import math
from pathlib import Path
from typing import Any

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn
from torch.nn import functional as F

from lessons.lesson_01_vit.model import VisionTransformer
from lessons.lesson_03_blip2.model import config_mapping
from lessons.lesson_03_blip2.model.config import RetrieverConfig
from lessons.lesson_03_blip2.model.losses import (
    contrastive_loss,
    hard_negative_probabilities,
    image_text_similarity,
    language_modeling_loss,
    matching_loss,
)
from lessons.lesson_03_blip2.model.masks import task_mask
from lessons.lesson_03_blip2.model.qformer import QFormer
from lessons.lesson_03_blip2.model.weight_names import retriever_weight_names
from shared.attention import Mask
from shared.pretrained import load_weights, save_pretrained
from shared.training import LossSum


class Retriever(nn.Module):
    """Compare and match images and texts with a frozen vision encoder and a Q-Former with text input.

    vision_encoder  any module whose `features(images)` returns tokens [batch, patches, context_width]

    Texts are token ids [batch, text] with segments, 0 for a token and −1 for padding; the state of the first token
    represents the text. The methods take image features, so that a frozen encoder processes each image only once.
    """

    def __init__(self, config: RetrieverConfig, vision_encoder: nn.Module):
        super().__init__()
        self.config, width = config, config.qformer.width
        self.vision_encoder: Any = vision_encoder
        self.queries = nn.Parameter(torch.randn(config.queries, width) * 0.02)
        self.word_embedding = nn.Embedding(config.vocab_size, width)
        self.position_embedding = nn.Embedding(config.max_text_tokens, width)
        self.qformer = QFormer(config.qformer)
        self.image_projection = nn.Linear(width, config.projection_dim)
        self.text_projection = nn.Linear(width, config.projection_dim)
        self.matching_classifier = nn.Linear(width, 2)
        for table in (self.word_embedding, self.position_embedding):
            nn.init.normal_(table.weight, std=0.02)

    def query_states(
        self, image_features: Float[Tensor, "batch patches context"]
    ) -> Float[Tensor, "batch queries width"]:
        """Return the queries' final states for each image, without text."""
        queries = self.queries.expand(len(image_features), -1, -1)
        return self.qformer(queries, queries=self.config.queries, context=image_features)

    def query_and_text_states(
        self,
        task: str,
        image_features: Float[Tensor, "batch patches context"],
        token_ids: Int[Tensor, "batch text"],
        segments: Int[Tensor, "batch text"],
    ) -> tuple[Float[Tensor, "batch queries width"], Float[Tensor, "batch text width"]]:
        """Return the final states of queries and text after one pass with the mask of a task."""
        queries = self.config.queries
        x = torch.cat([self.queries.expand(len(image_features), -1, -1), self._embed(token_ids)], dim=1)
        x = self.qformer(x, queries=queries, context=image_features, mask=task_mask(task, queries, segments))
        return x[:, :queries], x[:, queries:]

    def image_embeddings(
        self, image_features: Float[Tensor, "batch patches context"]
    ) -> Float[Tensor, "batch queries projection"]:
        """Return each image in the shared space: one vector of length 1 per query."""
        return F.normalize(self.image_projection(self.query_states(image_features)), dim=-1)

    def text_embeddings(
        self, token_ids: Int[Tensor, "batch text"], segments: Int[Tensor, "batch text"]
    ) -> Float[Tensor, "batch projection"]:
        """Return each text in the shared space: the projected state of its first token, of length 1."""
        mask = Mask(segment_q=segments, segment_k=segments)
        text_states = self.qformer(self._embed(token_ids), queries=0, mask=mask)
        return F.normalize(self.text_projection(text_states[:, 0]), dim=-1)

    def matching_logits(
        self,
        image_features: Float[Tensor, "batch patches context"],
        token_ids: Int[Tensor, "batch text"],
        segments: Int[Tensor, "batch text"],
    ) -> Float[Tensor, "batch 2"]:
        """Return the logits of (no match, match) per pair: the mean over the queries."""
        queries, _ = self.query_and_text_states("matching", image_features, token_ids, segments)
        return self.matching_classifier(queries).mean(dim=1)

    def forward(
        self,
        images: Float[Tensor, "images channels height width_px"],
        token_ids: Int[Tensor, "texts text"],
        segments: Int[Tensor, "texts text"],
    ) -> Float[Tensor, "images texts"]:
        """Return the similarity of every image with every text."""
        images = self.image_embeddings(self.vision_encoder.features(images))
        return image_text_similarity(images, self.text_embeddings(token_ids, segments))

    def _embed(self, token_ids: Int[Tensor, "batch text"]) -> Float[Tensor, "batch text width"]:
        longest = self.config.max_text_tokens
        if token_ids.shape[1] > longest:
            raise ValueError(
                f"a text has {token_ids.shape[1]} tokens; this model has positions for {longest}, shorten it"
            )
        return self.word_embedding(token_ids) + self.position_embedding.weight[: token_ids.shape[1]]

    # ── Published checkpoints ─────────────────────────────────────────────────────────────────────────────────────

    @classmethod
    def from_pretrained(cls, folder: Path | str) -> "Retriever":
        """Load a published `Blip2ForImageTextRetrieval` in evaluation mode. Raises CourseError for another model."""
        config, vision = config_mapping.read_retriever(folder)
        model = cls(config, VisionTransformer(vision))
        load_weights(model, folder, retriever_weight_names(vision))
        return model.eval()

    def save_pretrained(self, folder: Path | str) -> None:
        """Write a folder for `Blip2ForImageTextRetrieval`. Raises CourseError unless the encoder is a plain ViT."""
        vision = config_mapping.plain_vision(self.vision_encoder)
        config = config_mapping.write_retriever(self.config, vision)
        save_pretrained(folder, self, retriever_weight_names(vision), config)


class FirstStage(nn.Module):
    """The first stage's training objective: three losses on one batch of pairs (section 3.2).

    decode_token_id     replaces the first token of a text in generation, as the paper's [DEC] replaces [CLS]
    tokens_per_caption  mean number of predicted tokens per caption of the training data; unless given, of the batch

    A batch must not contain a caption twice: two images with the same caption are each other's false negatives.

    The loss is a sum over pairs, and their number. So gradients of several batches add up to a mean over all their
    pairs. For generation this is the mean of one large batch, if `tokens_per_caption` is given. For contrast and
    matching this is impossible: their negatives come from the same batch, and a smaller batch has fewer of them.
    (`lesson_02_clip.model.gradient_cache` computes the contrastive loss of a large batch in small parts.)
    """

    def __init__(self, retriever: Retriever, decode_token_id: int, tokens_per_caption: float | None = None):
        super().__init__()
        self.retriever, self.decode_token_id = retriever, decode_token_id
        self.tokens_per_caption = tokens_per_caption
        width = retriever.config.qformer.width
        self.log_temperature = nn.Parameter(torch.tensor(math.log(0.07)))
        self.lm_transform = nn.Linear(width, width)
        self.lm_norm = nn.LayerNorm(width)
        self.lm_bias = nn.Parameter(torch.zeros(retriever.config.vocab_size))

    def forward(
        self,
        image_features: Float[Tensor, "pairs patches context"],
        token_ids: Int[Tensor, "pairs text"],
        segments: Int[Tensor, "pairs text"],
    ) -> tuple[LossSum, dict[str, LossSum]]:
        """Return the sum of the three losses with the number of pairs as terms, and each loss by its name."""
        queries, text = self.retriever.query_and_text_states("contrastive", image_features, token_ids, segments)
        image_embeddings = F.normalize(self.retriever.image_projection(queries), dim=-1)
        text_embeddings = F.normalize(self.retriever.text_projection(text[:, 0]), dim=-1)
        scores = image_text_similarity(image_embeddings, text_embeddings) / self.log_temperature.exp()
        contrastive = contrastive_loss(scores)
        matching = self._matching_loss(scores, image_features, token_ids, segments)
        generation = self._generation_loss(image_features, token_ids, segments)
        losses = {"contrastive": contrastive, "matching": matching, "generation": generation}
        pairs = len(image_features)
        return (
            LossSum.of_mean(contrastive + matching + generation, pairs),
            {name: LossSum.of_mean(loss.detach(), pairs) for name, loss in losses.items()},
        )

    def _matching_loss(
        self, scores: Tensor, image_features: Tensor, token_ids: Tensor, segments: Tensor
    ) -> Float[Tensor, ""]:
        """Return the matching loss over the true pairs, each image with a hard negative text, and the reverse."""
        negative_texts = torch.multinomial(hard_negative_probabilities(scores), 1).squeeze(1)
        negative_images = torch.multinomial(hard_negative_probabilities(scores.T), 1).squeeze(1)
        logits = self.retriever.matching_logits(
            torch.cat([image_features, image_features, image_features[negative_images]]),
            torch.cat([token_ids, token_ids[negative_texts], token_ids]),
            torch.cat([segments, segments[negative_texts], segments]),
        )
        return matching_loss(logits[: len(image_features)], logits[len(image_features) :])

    def _generation_loss(self, image_features: Tensor, token_ids: Tensor, segments: Tensor) -> Float[Tensor, ""]:
        """Return the cross-entropy per caption, divided by the mean number of tokens per caption."""
        logits = self.generation_logits(image_features, token_ids, segments)
        mean = language_modeling_loss(logits, token_ids, segments)
        if self.tokens_per_caption is None:
            return mean
        tokens_per_caption = (segments[:, 1:] >= 0).sum() / len(segments)
        return mean * tokens_per_caption / self.tokens_per_caption

    def generation_logits(
        self,
        image_features: Float[Tensor, "batch patches context"],
        token_ids: Int[Tensor, "batch text"],
        segments: Int[Tensor, "batch text"],
    ) -> Float[Tensor, "batch text vocab"]:
        """Return the logits of the token after each token; the image enters through the queries only."""
        decode_token = torch.full_like(token_ids[:, :1], self.decode_token_id)
        inputs = torch.cat([decode_token, token_ids[:, 1:]], dim=1)
        _, text = self.retriever.query_and_text_states("generation", image_features, inputs, segments)
        # BERT's prediction layers; the output matrix is shared with the word embedding.
        states = self.lm_norm(F.gelu(self.lm_transform(text)))
        return F.linear(states, self.retriever.word_embedding.weight, self.lm_bias)
