"""From the tokens of an eye to a few vectors that a language model can read: the Q-Former, and two simpler ways to compare."""

import torch
from jaxtyping import Float
from torch import Tensor, nn

from lessons.lesson_03_blip2.model.config import QFormerConfig
from lessons.lesson_03_blip2.model.qformer import QFormer
from lessons.lesson_03_blip2.model.retriever import Retriever


class QFormerBridge(nn.Module):
    """Queries gather, a matrix translates: [batch, patches, context] → [batch, queries, language width] (figure 3)."""

    def __init__(self, config: QFormerConfig, queries: int, language_width: int):
        super().__init__()
        self.queries = nn.Parameter(torch.randn(queries, config.width) * 0.02)
        self.qformer = QFormer(config)
        self.projection = nn.Linear(config.width, language_width)

    def forward(
        self, features: Float[Tensor, "batch patches context"]
    ) -> Float[Tensor, "batch queries language_width"]:
        queries = self.queries.expand(len(features), -1, -1)
        return self.projection(self.qformer(queries, queries=len(self.queries), context=features))

    @torch.no_grad()
    def start_from(self, retriever: Retriever) -> None:
        """Take over what the first stage has learned: the queries, and all of the Q-Former but what was for reading text.

        Raises ValueError when the two differ in size.
        """
        theirs = retriever.qformer.state_dict()
        mine = self.qformer.state_dict()
        misfits = [name for name, tensor in mine.items() if name not in theirs or theirs[name].shape != tensor.shape]
        if misfits or self.queries.shape != retriever.queries.shape:
            raise ValueError(f"the first stage's Q-Former is of other sizes: {', '.join(misfits) or 'queries'} differ")
        self.queries.copy_(retriever.queries)
        self.qformer.load_state_dict({name: theirs[name] for name in mine})


class LinearBridge(nn.Module):
    """Every patch becomes a token of the language model by one matrix: nothing is lost, and nothing is short."""

    def __init__(self, context_width: int, language_width: int):
        super().__init__()
        self.projection = nn.Linear(context_width, language_width)

    def forward(
        self, features: Float[Tensor, "batch patches context"]
    ) -> Float[Tensor, "batch patches language_width"]:
        return self.projection(features)


class MeanPoolingBridge(nn.Module):
    """One vector for the whole image: the mean of its patches, translated."""

    def __init__(self, context_width: int, language_width: int):
        super().__init__()
        self.projection = nn.Linear(context_width, language_width)

    def forward(self, features: Float[Tensor, "batch patches context"]) -> Float[Tensor, "batch 1 language_width"]:
        return self.projection(features.mean(dim=1, keepdim=True))
