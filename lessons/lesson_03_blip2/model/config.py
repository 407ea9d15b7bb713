"""What a Q-Former is made of, and the sizes around it. The defaults are those of BLIP-2 (arXiv:2301.12597, section 3.1)."""

from dataclasses import dataclass

from shared.transformer import DecoderConfig


@dataclass(frozen=True)
class QFormerConfig:
    """The sizes of a querying transformer; the defaults are BERT-base's, from which the paper starts.

    width          values of a query, and of a text token
    depth          blocks
    heads          attention heads in a block
    mlp_dim         width inside the feed-forward networks
    context_width  values of one token of the frozen image encoder
    cross_every    the blocks 0, cross_every, 2 · cross_every, … look at the image
    reads_text     whether text goes through it too; stage 2 and the weights published for it have no need of that
    norm_eps       added to the variance in every LayerNorm

    Raises ValueError when the sizes don't fit each other.
    """

    width: int = 768
    depth: int = 12
    heads: int = 12
    mlp_dim: int = 3072
    context_width: int = 1408
    cross_every: int = 2
    reads_text: bool = False
    norm_eps: float = 1e-12

    def __post_init__(self) -> None:
        if self.width % self.heads:
            raise ValueError(f"width {self.width} does not divide into {self.heads} heads")
        if self.cross_every < 1:
            raise ValueError(
                f"cross_every is {self.cross_every}; 1 looks at the image in every block, 2 in every other"
            )


@dataclass(frozen=True)
class RetrieverConfig:
    """The first stage's model: a Q-Former with words of its own, and a space that images and texts share.

    qformer       its `reads_text` must be True
    queries       learned query tokens
    vocab_size    words that it can read
    max_text      longest text in tokens
    shared_width  values of the vectors that are compared

    Raises ValueError for a Q-Former that reads no text.
    """

    qformer: QFormerConfig
    queries: int = 32
    vocab_size: int = 30_522
    max_text: int = 512
    shared_width: int = 256

    def __post_init__(self) -> None:
        if not self.qformer.reads_text:
            raise ValueError("the first stage compares images with texts: set reads_text=True in its Q-Former's config")


def opt_config(**sizes: int) -> DecoderConfig:
    """Return the config of an OPT decoder (arXiv:2205.01068, table 1); the default sizes are OPT-125M's.

    OPT has GPT-3's architecture: learned positions, LayerNorm before attention and MLP, biases, ReLU. Two rows before
    the vector of position 0 are unused.
    """
    defaults = {"vocab_size": 50_272, "width": 768, "depth": 12, "heads": 12, "mlp_dim": 3072, "max_positions": 2048}
    sizes = defaults | sizes
    return DecoderConfig(
        **sizes,
        kv_heads=sizes["heads"],
        tied=True,
        bias=True,
        positions="learned",
        position_offset=2,
        norm="layer",
        activation="relu",
    )
