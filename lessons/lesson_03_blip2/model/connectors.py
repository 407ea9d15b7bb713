"""Connectors between a vision encoder and a language model: the Q-Former, and two simpler ones to compare it with."""

import torch
from jaxtyping import Float
from torch import Tensor, nn

from lessons.lesson_03_blip2.model.config import QFormerConfig
from lessons.lesson_03_blip2.model.qformer import QFormer
from lessons.lesson_03_blip2.model.retriever import Retriever


class QFormerConnector(nn.Module):
    """Let queries attend to the image, and project them to the language model's width (arXiv:2301.12597, figure 3)."""

    def __init__(self, config: QFormerConfig, queries: int, language_width: int):
        super().__init__()
        self.queries = nn.Parameter(torch.randn(queries, config.width) * 0.02)
        self.qformer = QFormer(config)
        self.projection = nn.Linear(config.width, language_width)

    def forward(
        self, image_features: Float[Tensor, "batch patches context"]
    ) -> Float[Tensor, "batch queries language_width"]:
        queries = self.queries.expand(len(image_features), -1, -1)
        return self.projection(self.qformer(queries, queries=len(self.queries), context=image_features))

    @torch.no_grad()
    def load_first_stage(self, retriever: Retriever) -> None:
        """Copy the queries and the Q-Former of the first stage, without the parts that process text.

        Raises ValueError when the sizes differ.
        """
        source, target = retriever.qformer.state_dict(), self.qformer.state_dict()
        mismatched_names = [
            name for name, tensor in target.items() if name not in source or source[name].shape != tensor.shape
        ]
        if mismatched_names or self.queries.shape != retriever.queries.shape:
            raise ValueError(
                f"the first stage's Q-Former has other sizes: {', '.join(mismatched_names) or 'queries'} differ"
            )
        self.queries.copy_(retriever.queries)
        self.qformer.load_state_dict({name: source[name] for name in target})


class LinearConnector(nn.Module):
    """Project every patch to one token of the language model with one linear layer."""

    def __init__(self, context_width: int, language_width: int):
        super().__init__()
        self.projection = nn.Linear(context_width, language_width)

    def forward(
        self, image_features: Float[Tensor, "batch patches context"]
    ) -> Float[Tensor, "batch patches language_width"]:
        return self.projection(image_features)


class MeanPoolingConnector(nn.Module):
    """Project the mean of all patches to one token of the language model."""

    def __init__(self, context_width: int, language_width: int):
        super().__init__()
        self.projection = nn.Linear(context_width, language_width)

    def forward(
        self, image_features: Float[Tensor, "batch patches context"]
    ) -> Float[Tensor, "batch 1 language_width"]:
        return self.projection(image_features.mean(dim=1, keepdim=True))


Connector = QFormerConnector | LinearConnector | MeanPoolingConnector


def build_connector(kind: str, config: QFormerConfig, queries: int, language_width: int) -> Connector:
    """Return a new connector; `config` and `queries` are the Q-Former's. Raises ValueError for another type."""
    match kind:
        case "qformer":
            return QFormerConnector(config, queries, language_width)
        case "linear":
            return LinearConnector(config.context_width, language_width)
        case "mean":
            return MeanPoolingConnector(config.context_width, language_width)
    raise ValueError(f"connector is {kind!r}; choose qformer, linear or mean")
