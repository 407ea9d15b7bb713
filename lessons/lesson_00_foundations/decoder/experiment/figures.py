"""The decoder's figures, drawn from what a run has measured and trained."""

from collections.abc import Sequence

import numpy as np
import torch
from jaxtyping import Float
from matplotlib.axes import Axes
from torch import Tensor

from data.toybox import episodes as toy_episodes
from lessons.lesson_00_foundations.decoder.model import LanguageModel
from lessons.lesson_00_foundations.decoder.model.toy_decoder import toy_decoder
from shared import plots
from shared.attention import Mask
from shared.course.lesson import Run
from shared.tokenizers import Tokenizer, load_tokenizer
from shared.training import load_weights

CAPTIONS = {
    "decoder_learning_curve": "Bits that a byte of new text costs while the decoder learns; dashed, the best n-gram that has counted "
    "the same text.",
    "decoder_examples": "Accuracy on rules that were never trained on, by the number of examples in the prompt: trained on episodes "
    "of one rule each, and on the same lines with the rules mixed. Dashed, the best possible guess.",
    "decoder_looking": "Where two heads look while the third line of an episode is read (row: the token just read; column: the token "
    "looked at; darker is more). Above, the head that looks most at the answers of the examples, below the one that looks most "
    "at the word to be said next.",
    "decoder_speed": "Writing 160 tokens with a decoder of five million weights on this processor, and what its weights take.",
}
SHOWN_LINES = 3


def draw(run: Run) -> dict[str, plots.Figure]:
    """Every figure of the part."""
    return {
        "decoder_learning_curve": learning_curve(run),
        "decoder_examples": examples(run),
        "decoder_looking": looking(run),
        "decoder_speed": speed(run),
    }


def measured(run: Run, arm: str, name: str) -> list:
    """One thing that an arm has measured, for every seed."""
    return [run.arms[seed][arm][name] for seed in run.seeds]


def learning_curve(run: Run) -> plots.Figure:
    """Bits a byte over the training steps."""
    return plots.learning_curves(
        {"decoder": measured(run, "decoder", "bits_per_byte_curve")}, y_label="bits a byte, on new text",
        baselines={"Kneser–Ney": float(np.mean(measured(run, "decoder", "ngram_bits_per_byte")))},
    )  # fmt: skip


def examples(run: Run) -> plots.Figure:
    """Accuracy by the number of examples, of either kind of episode, for both trainings."""
    card, axes = plots.subplots(height=3.8, columns=2)
    for axis, kind in zip(axes[0], toy_episodes.EPISODES, strict=True):
        name = f"held_out_{kind}_by_shots"
        _curve(axis, measured(run, "decoder", name), "trained on rules", plots.BLUE, "o-")
        _curve(axis, measured(run, "decoder, mixed rules", name), "trained on mixed rules", plots.VERMILLION, "s-")
        if kind == "choosing":
            best = np.mean(measured(run, "decoder", "best_choosing_by_shots"), axis=0)
            axis.plot(range(len(best)), best, color=plots.GRAY, linestyle="--", linewidth=1.4, label="best possible")
        axis.set(title=kind, xlabel="examples before", ylim=(-0.03, 1.05), yticks=[0, 0.25, 0.5, 0.75, 1])
        axis.set_yticklabels(["0 %", "25 %", "50 %", "75 %", "100 %"])
    axes[0, 0].set_ylabel("right answers")
    axes[0, 1].legend(frameon=False, loc="lower right", fontsize=9)
    return card


def _curve(axis: Axes, seeds: Sequence[Sequence[float]], label: str, colour: str, mark: str) -> None:
    """The mean of a few curves over a band from the least to the greatest."""
    values = np.array(seeds)
    places = range(values.shape[1])
    axis.plot(places, values.mean(0), mark, color=colour, markersize=4, label=label)
    axis.fill_between(places, values.min(0), values.max(0), color=colour, alpha=0.18, linewidth=0)


# ── A look inside ─────────────────────────────────────────────────────────────────────────────────────────────────────


def looking(run: Run) -> plots.Figure:
    """Two heads of the trained decoder, reading the third line of an episode of naming by a held-out rule of two words."""
    seed = run.seeds[0]
    folder = run.arm_folder(seed, "decoder")
    tokenizer = load_tokenizer(folder / "tokenizer.json")
    model = load_weights(toy_decoder(tokenizer.vocab_size), folder).eval()
    episodes = (toy_episodes.episode_at("naming", "validation", seed, number, held_out=True) for number in range(1000))
    lines = next(filter(tells, (episode[:SHOWN_LINES] for episode in episodes)))
    tokens, answers, last, wanted = _episode(tokenizer, lines)
    weights = attention_maps(model, torch.tensor([tokens]))
    names = [tokenizer.decode([token]).strip().replace("\n", "⏎") for token in tokens]
    names[0] = "begin"
    asked = torch.tensor([place for place, _ in wanted])
    at_examples = weights[:, :, asked][..., answers].sum(-1).mean(-1)
    at_word = torch.stack([weights[:, :, place, target] for place, target in wanted]).mean(0)
    card, axes = plots.subplots(height=5.6, rows=2)
    for axis, scores in zip(axes[:, 0], (at_examples, at_word), strict=True):
        layer, head = divmod(int(scores.argmax()), scores.shape[1])
        axis.imshow(weights[layer, head, last:], cmap=plots.SEQUENTIAL, vmin=0, vmax=1, aspect="auto")
        axis.grid(visible=False)
        axis.set_xticks(range(len(names)), names, rotation=90, fontsize=9)
        axis.set_yticks(range(len(names) - last), names[last:], fontsize=9)
        axis.set_title(f"layer {layer + 1}, head {head + 1}", fontsize=10, loc="left")
    return card


def tells(lines: Sequence[toy_episodes.Line]) -> bool:
    """Whether each line names two attributes, and no word twice: so that looking at a word and at its kind are two things."""
    words = " ".join(line.answer for line in lines).split()
    return len(set(words)) == len(words) == 2 * len(lines)


def _episode(
    tokenizer: Tokenizer, lines: Sequence[toy_episodes.Line]
) -> tuple[list[int], list[int], int, list[tuple[int, int]]]:
    """The tokens of an episode without its last full stop; the places of the examples' answers; where the last line begins; and
    for each word of its answer the place before it and where the word stands among what is shown."""
    tokens, answers, wanted, last = [tokenizer.special_tokens[BEGIN_TOKEN]], [], [], 0
    for line in lines:
        last = len(tokens)
        tokens += tokenizer.encode(line.prompt)
        begin = len(tokens)
        tokens += tokenizer.encode(f" {line.answer}")
        if line is not lines[-1]:
            answers += range(begin, len(tokens))
            tokens += tokenizer.encode(".\n")
        else:
            shown = line.prompt.rstrip(":").split()
            wanted = [(begin - 1 + i, last + shown.index(word)) for i, word in enumerate(line.answer.split())]
    return tokens, answers, last, wanted


@torch.no_grad()
def attention_maps(model: LanguageModel, tokens: Tensor) -> Float[Tensor, "layers heads tokens tokens"]:
    """Where every head of every layer looks while the model reads one row of tokens."""
    angles = model.rotary(torch.arange(tokens.shape[1])[None, :, None])
    x, mask, maps = model.embedding(tokens), Mask(causal=True), []
    for block in model.blocks:
        maps.append(block.attention.weights(block.attention_norm(x), mask=mask, angles=angles)[0])
        x = block(x, mask=mask, angles=angles)
    return torch.stack(maps)


# ── Speed and memory ──────────────────────────────────────────────────────────────────────────────────────────────────


def speed(run: Run) -> plots.Figure:
    """Tokens a second and megabytes, side by side."""
    card, axes = plots.subplots(height=2.7, columns=2)
    arm = "decoder, speed"
    rates = {
        "reading all again": measured(run, arm, "tokens_per_second_recomputed"),
        "with a cache": measured(run, arm, "tokens_per_second"),
        "cache, 8 bits": measured(run, arm, "tokens_per_second_int8"),
    }
    sizes = {
        "32 bits": [value / 1e6 for value in measured(run, arm, "bytes")],
        "8 bits": [value / 1e6 for value in measured(run, arm, "int8_bytes")],
    }
    for axis, bars, label in zip(axes[0], (rates, sizes), ("tokens a second", "megabytes of weights"), strict=True):
        for place, values in enumerate(bars.values()):
            axis.barh(place, np.mean(values), height=0.6, color=plots.BLUE)
            axis.text(np.mean(values), place, f" {np.mean(values):,.0f}", va="center", fontweight="bold")
        axis.set_yticks(range(len(bars)), list(bars), color=plots.INK)
        axis.invert_yaxis()
        axis.grid(visible=False)
        axis.set_xlabel(label)
        axis.margins(x=0.2)
    return card
