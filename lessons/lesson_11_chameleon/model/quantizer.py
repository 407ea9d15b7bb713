"""Vector quantization: each vector becomes the nearest entry of a learned codebook (arXiv:1711.00937).

An encoder gives a map of vectors z, and the quantizer returns for each the code k of the nearest entry e and e itself:

    k = argmin_j ‖z − e_j‖²

`argmin` has no gradient. The straight-through estimator copies the decoder's gradient at e to z. The commitment loss
β ‖z − sg[e]‖² moves z toward its entry, where sg[·] lets no gradient through. The codebook learns in one of two ways:

ema       each entry is the moving average of the vectors that it was nearest to (appendix A.1; arXiv:1906.00446)
gradient  the codebook loss ‖sg[z] − e‖² is added (eq. 3)

An entry that is nearest to no vector would never move again. Such a dead code restarts at a random vector of the
current batch (arXiv:2005.00341, section 3).
"""

from typing import NamedTuple

import torch
from einops import rearrange
from jaxtyping import Float, Int
from torch import Tensor, nn
from torch.nn import functional as F

Maps = Float[Tensor, "batch width rows columns"]
Codes = Int[Tensor, "batch rows columns"]
Vectors = Float[Tensor, "vectors width"]


class Quantized(NamedTuple):
    """Hold a quantized map.

    maps   quantized vectors, whose gradient passes straight through to the encoder's
    codes  of each position, from 0 to codebook_size − 1
    loss   what the quantizer adds to the reconstruction loss
    """

    maps: Maps
    codes: Codes
    loss: Float[Tensor, ""]


# ── The parts ─────────────────────────────────────────────────────────────────────────────────────────────────────────


def nearest_codes(vectors: Vectors, codebook: Float[Tensor, "codes width"]) -> Int[Tensor, "vectors"]:
    """Return for each vector the index of the codebook's entry at the smallest Euclidean distance (eq. 1).

    ‖z − e‖² = ‖z‖² − 2 z·e + ‖e‖², and ‖z‖² is the same for every entry: a matrix product is enough.
    """
    # exercise 11.11: the nearest code
    return (codebook.square().sum(dim=1) - 2 * vectors @ codebook.T).argmin(dim=1)
    # end exercise


def straight_through(vectors: Vectors, quantized: Vectors) -> Vectors:
    """Return the values of `quantized`, with a gradient of 1 with respect to `vectors` (section 3.2)."""
    # exercise 11.12: the straight-through estimator
    return vectors + (quantized - vectors).detach()
    # end exercise


def quantization_loss(
    vectors: Vectors, quantized: Vectors, *, commitment: float, codebook: float = 0.0
) -> Float[Tensor, ""]:
    """Return commitment · mean (z − sg[e])² + codebook · mean (sg[z] − e)² (eq. 3).

    The two terms are equal in value; the first has a gradient for the encoder only, the second for the codebook only.
    """
    # exercise 11.13: the commitment loss and the codebook loss
    to_encoder = F.mse_loss(vectors, quantized.detach())
    to_codebook = F.mse_loss(quantized, vectors.detach())
    return commitment * to_encoder + codebook * to_codebook
    # end exercise


def update_averages(
    counts: Float[Tensor, "codes"],
    sums: Float[Tensor, "codes width"],
    vectors: Vectors,
    codes: Int[Tensor, "vectors"],
    decay: float,
) -> tuple[Float[Tensor, "codes"], Float[Tensor, "codes width"]]:
    """Return the moving averages of how many vectors each code was assigned per batch, and of their sum.

    new = decay · old + (1 − decay) · batch (arXiv:1711.00937, appendix A.1). An entry of the codebook is sum / count.

    counts, sums  the old averages; the new ones are returned in this order
    codes         the code of each vector of the batch; a code without vectors has the batch values 0
    """
    # exercise 11.14: moving averages of the codebook
    assigned = F.one_hot(codes, len(counts)).to(vectors.dtype).T  # [codes, vectors]
    counts = decay * counts + (1 - decay) * assigned.sum(dim=1)
    sums = decay * sums + (1 - decay) * assigned @ vectors
    return counts, sums
    # end exercise


def restart_dead_codes(
    counts: Float[Tensor, "codes"],
    sums: Float[Tensor, "codes width"],
    replacements: Float[Tensor, "codes width"],
    mean_count: float,
    threshold: float,
) -> tuple[Float[Tensor, "codes"], Float[Tensor, "codes width"]]:
    """Return the averages, where each dead code starts again at its replacement (arXiv:2005.00341, section 3).

    replacements  a vector of the current batch for each code, dead or not
    mean_count    vectors per batch / codes: every count, if all codes were used equally
    threshold     a code is dead when its count is below threshold · mean_count; it restarts with the count mean_count
    """
    # exercise 11.15: restart dead codes
    dead = counts < threshold * mean_count
    counts = torch.where(dead, mean_count, counts)
    sums = torch.where(dead[:, None], mean_count * replacements, sums)
    return counts, sums
    # end exercise


# ── How the codes are used ────────────────────────────────────────────────────────────────────────────────────────────


def code_frequencies(codes: Int[Tensor, "*positions"], codebook_size: int) -> Float[Tensor, "codes"]:
    """Return which fraction of the positions has each code. Raises ValueError for codes out of range, and for none."""
    check_codes(codes, codebook_size)
    if not codes.numel():
        raise ValueError("there is no code to count; give at least one image")
    counts = torch.bincount(codes.flatten(), minlength=codebook_size)
    return counts.double() / codes.numel()


def codebook_use(codes: Int[Tensor, "*positions"], codebook_size: int) -> float:
    """Return which fraction of the codebook occurs at all. Raises as `code_frequencies` does."""
    return float((code_frequencies(codes, codebook_size) > 0).double().mean())


def perplexity(codes: Int[Tensor, "*positions"], codebook_size: int) -> Float[Tensor, ""]:
    """Return exp(−Σ p log p) of the codes' frequencies p: the effective number of codes.

    It is 1 when a single code is used, and codebook_size when all are used equally. Raises as `code_frequencies` does.
    """
    frequencies = code_frequencies(codes, codebook_size)
    # exercise 11.16: perplexity of the codes
    return torch.special.entr(frequencies).sum().exp()  # entr(p) is −p log p, and 0 at p = 0
    # end exercise


def check_codes(codes: Int[Tensor, "*positions"], codebook_size: int) -> None:
    """Raise ValueError for codes that are no codes of a codebook of this size."""
    if codes.is_floating_point() or codes.dtype == torch.bool:
        raise ValueError(f"codes are {codes.dtype}; expected whole numbers, such as torch.int64")
    if not codes.numel():
        return
    lowest, highest = int(codes.min()), int(codes.max())
    if lowest < 0 or highest >= codebook_size:
        raise ValueError(
            f"codes lie between {lowest} and {highest}; this codebook has the codes 0 to {codebook_size - 1}: subtract "
            "the first image token's id from token ids, and leave text tokens out"
        )


# ── The quantizer ─────────────────────────────────────────────────────────────────────────────────────────────────────


class VectorQuantizer(nn.Module):
    """Quantize maps by a learned codebook: [batch, width, rows, columns] → the same shape, and codes.

    codebook_size  number of entries
    width          dimension of an entry
    learning       "ema": moving averages; "gradient": the codebook loss
    commitment     β, weight of the commitment loss
    decay          of the moving averages
    restart        a code is dead when it is used this much less than if all were used equally; 0 never restarts

    In training, a batch first restarts dead codes, then is quantized, then updates the averages. Before the first
    batch all counts are 0, so that its vectors become the first codebook. Under `torchrun` the averages see the rows of
    the main process, whose buffers DDP copies to the others.

    Raises ValueError for values out of range.
    """

    counts: Tensor
    sums: Tensor

    def __init__(
        self,
        codebook_size: int,
        width: int,
        *,
        learning: str = "ema",
        commitment: float = 0.25,
        decay: float = 0.99,
        restart: float = 0.03,
    ):
        super().__init__()
        if codebook_size < 2 or width < 1:
            raise ValueError(f"{codebook_size} codes of width {width} are too few; expected at least 2 of width 1")
        if learning not in ("ema", "gradient") or not 0 <= decay < 1 or commitment < 0 or not 0 <= restart < 1:
            raise ValueError(
                f"learning is {learning!r}, decay is {decay}, commitment is {commitment} and restart is {restart}; "
                "expected ema or gradient, a decay and a restart from 0 to less than 1, and a commitment of at least 0"
            )
        self.codebook_size, self.width, self.learning = codebook_size, width, learning
        self.commitment, self.decay, self.restart = commitment, decay, restart
        codebook = torch.randn(codebook_size, width) / width**0.5
        if learning == "gradient":
            self.codebook = nn.Parameter(codebook)
        else:
            self.register_buffer("codebook", codebook)
        self.register_buffer("counts", torch.zeros(codebook_size))
        self.register_buffer("sums", torch.zeros(codebook_size, width))

    def forward(self, maps: Maps) -> Quantized:
        batch, _, rows, _ = maps.shape
        vectors = rearrange(maps, "b w r c -> (b r c) w")
        if self.training and self.restart:
            self._restart(vectors.detach())
        codes = nearest_codes(vectors.detach(), self.codebook.detach())
        quantized = F.embedding(codes, self.codebook)
        loss = quantization_loss(
            vectors, quantized, commitment=self.commitment, codebook=float(self.learning == "gradient")
        )
        if self.training:
            self._update(vectors.detach(), codes)
        quantized = rearrange(straight_through(vectors, quantized), "(b r c) w -> b w r c", b=batch, r=rows)
        return Quantized(quantized, rearrange(codes, "(b r c) -> b r c", b=batch, r=rows), loss)

    def encode(self, maps: Maps) -> Codes:
        """Return the codes of maps; unlike a training step it changes no average."""
        codes = nearest_codes(rearrange(maps, "b w r c -> (b r c) w"), self.codebook)
        return rearrange(codes, "(b r c) -> b r c", b=len(maps), r=maps.shape[2])

    def decode(self, codes: Codes) -> Maps:
        """Return the entries of codes. Raises ValueError for codes out of range."""
        check_codes(codes, self.codebook_size)
        return rearrange(F.embedding(codes, self.codebook), "b r c w -> b w r c")

    @torch.no_grad()
    def _restart(self, vectors: Vectors) -> None:
        """Restart dead codes at random vectors of this batch."""
        mean_count = len(vectors) / self.codebook_size
        chosen = torch.randint(len(vectors), (self.codebook_size,), device=vectors.device)
        counts, sums = restart_dead_codes(self.counts, self.sums, vectors[chosen], mean_count, self.restart)
        restarted = (counts != self.counts)[:, None]
        self.counts.copy_(counts)
        self.sums.copy_(sums)
        self.codebook.copy_(torch.where(restarted, vectors[chosen], self.codebook))

    @torch.no_grad()
    def _update(self, vectors: Vectors, codes: Int[Tensor, "vectors"]) -> None:
        """Update the averages by a batch, and the codebook if it learns from them."""
        counts, sums = update_averages(self.counts, self.sums, vectors, codes, self.decay)
        self.counts.copy_(counts)
        self.sums.copy_(sums)
        if self.learning == "ema":
            # Without restarts, a code that was never used keeps its entry.
            used = (counts > 0)[:, None]
            self.codebook.copy_(torch.where(used, sums / counts.clamp(min=1e-12)[:, None], self.codebook))
