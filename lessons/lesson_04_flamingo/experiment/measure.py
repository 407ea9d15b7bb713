"""What a trained Flamingo is measured by: accuracy by the number of examples, the cost in text, its gates."""

import math
from collections.abc import Sequence

import torch
from jaxtyping import Float, Int
from torch import Tensor

from lessons.lesson_00_foundations.decoder.model import LanguageModel, has_previous_token, pack_documents
from lessons.lesson_00_foundations.decoder.model.evaluation import best_choosing, episode_accuracies
from lessons.lesson_04_flamingo.experiment.episodes import KINDS, WORDS, Episodes, Gallery, laid_out, lines_of
from lessons.lesson_04_flamingo.model import Flamingo
from shared.tokenizers import Tokenizer

SHOTS = tuple(range(9))
# Episodes of seeds from here on are never trained on; every run asks its own, so that means over runs are over more of them.
TEST_SEED = 1_000
TEST_SCENES = 1_500
MIXED = (1, 4, 8)


def accuracies_in_words(language: LanguageModel, tokenizer: Tokenizer, seed: int, count: int) -> dict[str, float]:
    """Where the same game is played in words, with held-out rules, by the number of examples.

    told  the language model alone, which reads what the things are
    best  the best possible guess: a rule can't be known before its examples have told it
    """
    told = episode_accuracies(language, tokenizer, "choosing", TEST_SEED + seed, held_out=True, count=count)
    return _by_shots("told", told) | _by_shots("best", best_choosing(TEST_SEED + seed))


def accuracies_in_images(
    model: Flamingo, tokenizer: Tokenizer, known: Gallery, seed: int, count: int, device: str
) -> dict[str, float]:
    """In images that are not `known`, by the number of examples.

    held_out, seen  with rules that were held out, and with rules met in training
    mixed           the same as held_out, but every example follows a rule of its own
    blind           the same, but the images are another episode's
    reads_…         asked for one kind alone: no rule is needed, only an eye
    probe_…         what a linear classifier reads of the same images
    """
    gallery = Gallery.of(model.vision, TEST_SEED + seed, TEST_SCENES, device)

    def asked(lines: int = len(SHOTS), **settings) -> Episodes:
        episodes = [lines_of(gallery, TEST_SEED + seed, number, lines, **settings) for number in range(count)]
        return laid_out(episodes, tokenizer)

    return {
        **_by_shots("held_out", accuracies(model, gallery, asked(held_out=True))),
        **_by_shots("seen", accuracies(model, gallery, asked())),
        **_by_shots("blind", accuracies(model, gallery, asked(held_out=True), exchanged=True)),
        # With rules of their own the lines are examples for nothing but the last: for each number, episodes of that length.
        **{
            f"mixed_{shots}": accuracies(model, gallery, asked(shots + 1, held_out=True, mixed=True))[-1]
            for shots in MIXED
        },
        **linear_probes(known, gallery),
        **{f"reads_{kind}": accuracies(model, gallery, asked(1, choices=[(kind,)]))[0] for kind in KINDS},
    }


def linear_probes(known: Gallery, new: Gallery) -> dict[str, float]:
    """What a linear classifier reads off the eye's tokens, kind by kind: a measure of the eye, with no Flamingo in it.

    Least squares on the mean and the greatest value of each feature over the tokens, fitted to one gallery, asked of another.
    """

    def pooled(gallery: Gallery) -> Float[Tensor, "images values"]:
        tokens = gallery.features.double()
        return torch.cat([tokens.mean(dim=1), tokens.amax(dim=1), torch.ones(len(tokens), 1).double()], dim=1)

    found = {}
    for kind, words in WORDS.items():
        labels, asked = (
            torch.tensor([words.index(getattr(scene.objects[0], kind)) for scene in gallery.scenes])
            for gallery in (known, new)
        )
        weights = torch.linalg.lstsq(pooled(known), torch.eye(len(words)).double()[labels], driver="gelsd").solution
        found[f"probe_{kind}"] = ((pooled(new) @ weights).argmax(dim=1) == asked).double().mean().item()
    return found


def _by_shots(name: str, found: Sequence[float]) -> dict[str, float]:
    return {f"{name}_{shots}": found[shots] for shots in SHOTS}


@torch.no_grad()
def accuracies(model: Flamingo, gallery: Gallery, asked: Episodes, *, exchanged: bool = False) -> list[float]:
    """The share of episodes whose line is answered rightly to the last token, by the number of lines before it: 0, 1, …

    One reading asks for all: no token knows of those after it, so line k is the question of a prompt of k examples. And
    greedy writing is right just where each of its tokens is the likeliest after those before it.

    exchanged  show the images of the next episode instead: what can be answered without seeing
    """
    rows, device = asked.rows, model.language.norm.weight.device
    right = torch.zeros(len(rows.tokens), len(asked.answers[0]))
    for some in torch.arange(len(rows.tokens)).split(64):
        images = rows.images[(some + 1) % len(rows.images) if exchanged else some]
        tokens, features, looks, segments = (
            part.to(device) for part in (rows.tokens[some], gallery.seen(images), rows.looks[some], rows.segments[some])
        )
        hits = (model(tokens, model.media(features), looks, segments).argmax(-1)[:, :-1] == tokens[:, 1:]).cpu()
        for row, number in enumerate(some.tolist()):
            for line, (first, last) in enumerate(asked.answers[number]):
                right[number, line] = hits[row, first - 1 : last - 1].all()
    return right.mean(dim=0).tolist()


def reading(
    model: Flamingo, tokens: Int[Tensor, "rows length"], segments: Int[Tensor, "rows length"]
) -> Float[Tensor, "rows length vocab"]:
    """Logits of plain text with all that was inserted: no token has an image to look at."""
    resampler = model.config.resampler
    nothing = torch.zeros(len(tokens), 1, resampler.latents, resampler.width, device=tokens.device)
    return model(tokens, nothing, torch.full_like(tokens, -1), segments)


@torch.no_grad()
def bits_in_text(model: Flamingo, documents: Sequence[Sequence[int]]) -> float:
    """Bits that plain documents cost, all together; the token that begins each is given."""
    tokens, segments = (
        part.to(model.language.norm.weight.device) for part in pack_documents(documents, max(map(len, documents)))
    )
    bits = 0.0
    for some, of_them in zip(tokens.split(32), segments.split(32), strict=True):
        inside = has_previous_token(of_them)
        chances = reading(model, some, of_them)[:, :-1][inside].double().log_softmax(-1)
        bits -= chances.gather(1, some[:, 1:][inside][:, None]).sum().item() / math.log(2)
    return bits


def gate_sizes(model: Flamingo) -> dict[str, float]:
    """How far each gate is open, mean of |tanh|, by layer."""
    if model.config.gates == "none":
        return {}
    return {
        f"{name}_{layer}": getattr(inserted, f"{name}_gate").detach().tanh().abs().mean().item()
        for layer, inserted in enumerate(model.inserted)
        for name in ("attention", "mlp")
    }
