"""The sizes of the Q-Former and the retrieval model; the defaults are BLIP-2's (arXiv:2301.12597, section 3.1)."""

from dataclasses import dataclass


@dataclass(frozen=True)
class QFormerConfig:
    """Describe a querying transformer; the defaults are BERT-base's, which the paper starts from.

    width                      dimension of a query and of a text token
    depth                      number of blocks
    heads                      attention heads per block
    mlp_dim                    inner width of the MLPs
    context_width              dimension of one token of the frozen vision encoder
    cross_attention_frequency  blocks 0, n, 2n, … attend to the image
    text_input                 whether text passes through it too; stage 2 and its published weights need none
    norm_eps                   added to the variance in every LayerNorm

    Raises ValueError when the sizes do not fit each other.
    """

    width: int = 768
    depth: int = 12
    heads: int = 12
    mlp_dim: int = 3072
    context_width: int = 1408
    cross_attention_frequency: int = 2
    text_input: bool = False
    norm_eps: float = 1e-12

    def __post_init__(self) -> None:
        if self.width % self.heads:
            raise ValueError(f"width {self.width} does not divide into {self.heads} heads; change one of them")
        if self.cross_attention_frequency < 1:
            raise ValueError(
                f"cross_attention_frequency is {self.cross_attention_frequency}; "
                "give 1 for cross-attention in every block, 2 for every other block"
            )


@dataclass(frozen=True)
class RetrieverConfig:
    """Describe the model of the first stage: a Q-Former with a vocabulary, and a shared space of images and texts.

    qformer          its `text_input` must be True
    queries          number of learned query tokens
    vocab_size       size of the vocabulary
    max_text_tokens  length of the longest text
    projection_dim   dimension of the compared embeddings

    Raises ValueError for a Q-Former without text input.
    """

    qformer: QFormerConfig
    queries: int = 32
    vocab_size: int = 30_522
    max_text_tokens: int = 512
    projection_dim: int = 256

    def __post_init__(self) -> None:
        if not self.qformer.text_input:
            raise ValueError("the first stage compares images with texts: set text_input=True in its Q-Former's config")
