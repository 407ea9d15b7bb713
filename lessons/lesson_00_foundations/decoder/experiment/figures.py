"""The figures of the part `decoder`, drawn from what a run has measured and trained."""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import torch
from jaxtyping import Float
from matplotlib.axes import Axes
from torch import Tensor

from data.toybox import episodes as toy_episodes
from lessons.lesson_00_foundations.decoder.experiment.arms import DECODER, MIXED, SPEED
from lessons.lesson_00_foundations.decoder.model import LanguageModel
from lessons.lesson_00_foundations.decoder.model.toy_decoder import toy_decoder
from shared import plots
from shared.attention import Mask
from shared.course.lesson import Run
from shared.tokenizers import Tokenizer, load_tokenizer
from shared.tokenizers.special_tokens import BEGIN_TOKEN
from shared.training import load_weights

CAPTIONS = {
    "decoder_learning_curve": "Bits per byte of validation documents during training; dashed, the best n-gram model on "
    "the test documents.",
    "decoder_examples": "Accuracy on held-out rules by the number of examples in the prompt: trained on episodes of "
    "one rule each, and on the same lines with mixed rules. Dashed, the best possible guess.",
    "decoder_attention": "Attention of two heads in the third line of an episode (row: the last token; column: the "
    "token attended to; darker is more). Above, the head that attends most to the answers of the examples; below, the "
    "head that attends most to the word of the next answer.",
    "decoder_speed": "Generating 160 tokens with a decoder of five million weights on this processor, and the memory "
    "of its weights.",
}
SHOWN_LINES = 3


def draw(run: Run) -> dict[str, plots.Figure]:
    """Draw every figure of the part."""
    return {
        "decoder_learning_curve": draw_learning_curve(run),
        "decoder_examples": draw_examples(run),
        "decoder_attention": draw_attention(run),
        "decoder_speed": draw_speed(run),
    }


def draw_learning_curve(run: Run) -> plots.Figure:
    """Draw bits per byte against the training steps."""
    return plots.learning_curves(
        {"decoder": run.measurements(DECODER, "bits_per_byte_curve")},
        y_label="bits per byte of new text",
        baselines={"Kneser–Ney": float(np.mean(run.measurements(DECODER, "ngram_bits_per_byte")))},
    )


def draw_examples(run: Run) -> plots.Figure:
    """Draw accuracy against the number of examples, for both types of episode and both trainings."""
    figure, axes = plots.subplots(height=3.8, columns=2)
    for axis, episode_type in zip(axes[0], toy_episodes.EPISODES, strict=True):
        name = f"held_out_{episode_type}_by_shots"
        _draw_band(axis, run.measurements(DECODER, name), "trained on rules", plots.BLUE, "o-")
        _draw_band(axis, run.measurements(MIXED, name), "trained on mixed rules", plots.VERMILION, "s-")
        if episode_type == "choosing":
            best = np.mean(run.measurements(DECODER, "best_choosing_by_shots"), axis=0)
            axis.plot(range(len(best)), best, color=plots.GRAY, linestyle="--", linewidth=1.4, label="best possible")
        axis.set(
            title=episode_type, xlabel="examples in the prompt", ylim=(-0.03, 1.05), yticks=[0, 0.25, 0.5, 0.75, 1]
        )
        axis.set_yticklabels(["0 %", "25 %", "50 %", "75 %", "100 %"])
    axes[0, 0].set_ylabel("accuracy")
    axes[0, 1].legend(frameon=False, loc="lower right", fontsize=9)
    return figure


def _draw_band(axis: Axes, curves: Sequence[Sequence[float]], label: str, color: str, mark: str) -> None:
    """Draw the mean of a few curves over a band from the least to the greatest."""
    values = np.array(curves)
    x = range(values.shape[1])
    axis.plot(x, values.mean(0), mark, color=color, markersize=4, label=label)
    axis.fill_between(x, values.min(0), values.max(0), color=color, alpha=0.18, linewidth=0)


# ── Attention ─────────────────────────────────────────────────────────────────────────────────────────────────────────


class EpisodeTokens(NamedTuple):
    """Token ids of an episode without its last full stop, and positions in it."""

    token_ids: list[int]
    example_answers: list[int]
    """Positions of the tokens of the examples' answers."""
    last_line: int
    """Position at which the last line starts."""
    answer_words: list[tuple[int, int]]
    """For each word of the last answer: the position before it, and the word's position in the prompt of the line."""


def draw_attention(run: Run) -> plots.Figure:
    """Draw two heads' attention in the third line of a naming episode with a held-out rule of two words."""
    seed = run.seeds[0]
    folder = run.arm_folder(seed, DECODER)
    tokenizer = load_tokenizer(folder / "tokenizer.json")
    model = load_weights(toy_decoder(tokenizer.vocab_size), folder).eval()
    episodes = (toy_episodes.episode_at("naming", "validation", seed, number, held_out=True) for number in range(1000))
    lines = next(filter(has_distinct_answers, (episode[:SHOWN_LINES] for episode in episodes)))
    episode = encode_episode(tokenizer, lines)
    weights = attention_maps(model, torch.tensor([episode.token_ids]))
    labels = [tokenizer.decode([token_id]).strip().replace("\n", "⏎") for token_id in episode.token_ids]
    labels[0] = "begin"
    queries = torch.tensor([position for position, _ in episode.answer_words])
    to_examples = weights[:, :, queries][..., episode.example_answers].sum(-1).mean(-1)
    to_word = torch.stack([weights[:, :, position, word] for position, word in episode.answer_words]).mean(0)
    figure, axes = plots.subplots(height=5.6, rows=2)
    last = episode.last_line
    for axis, scores in zip(axes[:, 0], (to_examples, to_word), strict=True):
        layer, head = divmod(int(scores.argmax()), scores.shape[1])
        axis.imshow(weights[layer, head, last:], cmap=plots.SEQUENTIAL, vmin=0, vmax=1, aspect="auto")
        axis.grid(visible=False)
        axis.set_xticks(range(len(labels)), labels, rotation=90, fontsize=9)
        axis.set_yticks(range(len(labels) - last), labels[last:], fontsize=9)
        axis.set_title(f"layer {layer + 1}, head {head + 1}", fontsize=10, loc="left")
    return figure


def has_distinct_answers(lines: Sequence[toy_episodes.Line]) -> bool:
    """Return whether each answer has two words, and no word occurs twice in the answers.

    Then attention to a word differs from attention to other words of its attribute type.
    """
    words = " ".join(line.answer for line in lines).split()
    return len(set(words)) == len(words) == 2 * len(lines)


def encode_episode(tokenizer: Tokenizer, lines: Sequence[toy_episodes.Line]) -> EpisodeTokens:
    """Return the token ids of an episode and the positions of its answers."""
    token_ids, example_answers = [tokenizer.special_tokens[BEGIN_TOKEN]], []
    for line in lines[:-1]:
        token_ids += tokenizer.encode(line.prompt)
        start = len(token_ids)
        token_ids += tokenizer.encode(f" {line.answer}")
        example_answers += range(start, len(token_ids))
        token_ids += tokenizer.encode(".\n")
    last_line, prompt, answer = len(token_ids), lines[-1].prompt, lines[-1].answer
    token_ids += tokenizer.encode(prompt)
    start, prompt_words = len(token_ids), prompt.rstrip(":").split()
    token_ids += tokenizer.encode(f" {answer}")
    answer_words = [(start - 1 + i, last_line + prompt_words.index(word)) for i, word in enumerate(answer.split())]
    return EpisodeTokens(token_ids, example_answers, last_line, answer_words)


@torch.no_grad()
def attention_maps(model: LanguageModel, token_ids: Tensor) -> Float[Tensor, "layers heads tokens tokens"]:
    """Return the attention weights of every head of every layer for one row of token ids."""
    angles = model.rotary(torch.arange(token_ids.shape[1])[None, :, None])
    x, mask, maps = model.embedding(token_ids), Mask(causal=True), []
    for block in model.blocks:
        maps.append(block.attention.weights(block.attention_norm(x), mask=mask, angles=angles)[0])
        x = block(x, mask=mask, angles=angles)
    return torch.stack(maps)


# ── Speed and memory ──────────────────────────────────────────────────────────────────────────────────────────────────


def draw_speed(run: Run) -> plots.Figure:
    """Draw tokens per second and megabytes of weights side by side."""
    figure, axes = plots.subplots(height=2.7, columns=2)
    rates = {
        "without cache": run.measurements(SPEED, "tokens_per_second_recomputed"),
        "with cache": run.measurements(SPEED, "tokens_per_second"),
        "with cache, int8": run.measurements(SPEED, "tokens_per_second_int8"),
    }
    sizes = {
        "float32": [value / 1e6 for value in run.measurements(SPEED, "bytes")],
        "int8": [value / 1e6 for value in run.measurements(SPEED, "int8_bytes")],
    }
    for axis, bars, label in zip(axes[0], (rates, sizes), ("tokens per second", "weights (MB)"), strict=True):
        for row, values in enumerate(bars.values()):
            axis.barh(row, np.mean(values), height=0.6, color=plots.BLUE)
            axis.text(np.mean(values), row, f" {np.mean(values):,.0f}", va="center", fontweight="bold")
        axis.set_yticks(range(len(bars)), list(bars), color=plots.INK)
        axis.invert_yaxis()
        axis.grid(visible=False)
        axis.set_xlabel(label)
        axis.margins(x=0.2)
    return figure
