"""The figures of lesson 4, drawn from the measurements and the trained model of a run."""

import math
from collections.abc import Sequence
from statistics import fmean

import torch
from matplotlib.ticker import PercentFormatter
from torch import Tensor

from data.toybox.heldout import TEST_SEED
from data.toybox.tensors import render_tensors
from lessons.lesson_00_foundations.decoder.model.toy_decoder import load_language_model
from lessons.lesson_02_clip.model.pretrained import load_vision_encoder
from lessons.lesson_04_flamingo.experiment.data import (
    ATTRIBUTES,
    EncodedScenes,
    Line,
    episode_lines,
    tokenize_episodes,
)
from lessons.lesson_04_flamingo.experiment.evaluate import MIXED_SHOTS, SHOTS
from lessons.lesson_04_flamingo.experiment.train import build_flamingo
from lessons.lesson_04_flamingo.model import Flamingo, cross_attention_matrix, latest_image_index
from shared import plots
from shared.course.lesson import Run
from shared.tokenizers import Tokenizer
from shared.training import load_weights

CAPTIONS = {
    "shots": "Accuracy by the number of examples in the prompt, on held-out rules: with the true images, with the "
    "images of another prompt, and with examples that follow other rules. Gray: the language model alone on the same "
    "task in text (dashed), and the best possible guess (dotted).",
    "data_flow": "The last of three lines in a trained model. Top: the image becomes latents, and every text token "
    "attends to those of its latest image. Bottom: the text tokens, what one inserted layer adds to them, and the most "
    "likely next tokens.",
    "episode": "Three prompts with held-out rules, from left to right. Below each image: the requested attributes, and "
    "the trained model's answer given the lines before.",
    "reading": "Accuracy on questions about a single attribute, which need no rule. Blue: Flamingo. Gray: a linear "
    "classifier on the features of the same images.",
    "gates": "Gate values during training (mean of |tanh|); all gates are initially zero. Left: cross-attention, "
    "right: MLP.",
    "latents": "Attention of each latent to the image (one row per test image), in the last block of the resampler, "
    "mean over heads. Its attention to other latents is not shown.",
    "ablations": "Accuracy on held-out rules, mean over 0 to 8 examples: with gates, without gates, and with a trained "
    "language model (one dot per seed).",
    "forgetting": "Cross-entropy of plain text after training, by arm, in bits per token. Dashed: before training.",
    "latest_image": "The latents that each token attends to, in a row of two documents with two images each (two "
    "latents per image).",
}
ARM_LABELS = {
    "Flamingo": "flamingo",
    "scalar gates": "scalar gates",
    "without gates": "without gates",
    "trained language model": "trained language model",
    "episodes without text": "without text",
}
"""Label in the figures → arm."""
EPISODES = 3


def draw(run: Run) -> dict[str, plots.Figure]:
    """Return every figure; the first one represents the lesson."""
    model, tokenizer = load_trained(run)
    encoded = EncodedScenes.sample(model.vision_encoder, TEST_SEED, 600, "cpu")
    return {
        "shots": shots(run),
        "data_flow": data_flow(model, tokenizer, encoded),
        "episode": episode(model, tokenizer, encoded),
        "reading": single_attributes(run),
        "gates": gates(run),
        "latents": latents(model, encoded),
        "ablations": ablations(run),
        "forgetting": forgetting(run),
        "latest_image": latest_image(),
    }


def load_trained(run: Run) -> tuple[Flamingo, Tokenizer]:
    """Return the headline model of the first seed, and its tokenizer."""
    language_model, tokenizer = load_language_model()
    measured = run.arms[run.seeds[0]]["flamingo"]
    model = build_flamingo(load_vision_encoder(), language_model, latents=measured["latents"], depth=measured["depth"])
    return load_weights(model, run.arm_folder(run.seeds[0], "flamingo")).eval(), tokenizer


def labeled_arms(run: Run) -> dict[str, str]:
    """Return label and name of the arms in this run."""
    return {label: arm for label, arm in ARM_LABELS.items() if arm in run.arms[run.seeds[0]]}


def shots(run: Run) -> plots.Figure:
    """Draw accuracy by the number of examples, with its controls and references."""

    def curves(name: str, counts: Sequence[int]) -> list[tuple[list[int], list[float]]]:
        return [
            (list(counts), [run.arms[seed]["flamingo"][f"{name}_{count}"] for count in counts]) for seed in run.seeds
        ]

    figure = plots.learning_curves(
        {
            "true images": curves("held_out", SHOTS),
            "exchanged images": curves("blind", SHOTS),
            "examples of\nother rules": curves("mixed", MIXED_SHOTS),
        },
        x_label="examples in the prompt",
        y_label="accuracy (exact match)",
        percent=True,
    )
    axis = figure.axes[0]
    for name, label, style in (
        ("best_guess", "best possible guess", ":"),
        ("text", "language model, in text", "--"),
    ):
        values = [fmean(run.measurements("flamingo", f"{name}_{count}")) for count in SHOTS]
        axis.plot(SHOTS, values, color=plots.GRAY, linestyle=style, linewidth=1.4, label=label)
    axis.legend(frameon=False, loc="center right", bbox_to_anchor=(1, 0.58))
    axis.set_ylim(0, 1)
    return figure


@torch.no_grad()
def data_flow(model: Flamingo, tokenizer: Tokenizer, encoded: EncodedScenes) -> plots.Figure:
    """Draw the actual values: image → features → latents; text → output of an inserted layer → next token."""
    lines = episode_lines(encoded, TEST_SEED, 0, 3, held_out=True)
    rows = tokenize_episodes([lines], tokenizer).rows
    answer_length = len(tokenizer.encode(lines[-1].answer))
    token_ids, image_index = rows.token_ids[:, :-answer_length], rows.image_index[:, :-answer_length]
    image_features = encoded.features_of(rows.images)
    visual_tokens, layer, states = model.resample(image_features), model.cross_attention_layers[-1], {}
    hook = layer.register_forward_hook(
        lambda _, inputs, output: states.update(x=inputs[0], mask=inputs[2], output=output)
    )
    probabilities, next_ids = model(token_ids, visual_tokens, image_index)[0, -1].softmax(-1).topk(4)
    hook.remove()
    queries = layer.attention_norm(states["x"])
    attention = layer.attention.weights(queries, visual_tokens.flatten(1, 2), mask=states["mask"])[0].mean(dim=0)
    predictions = [
        f"{tokenizer.decode([token_id])} {probability:.0%}"
        for token_id, probability in zip(next_ids.tolist(), probabilities.tolist(), strict=True)
    ]
    text = tokenizer.decode(token_ids[0, 1:].tolist()).replace("<image>", "\n<image>\n").replace("\n\n", "\n").strip()
    shape = [token_ids.shape[1], states["x"].shape[2]]
    top = {
        "image 3 of 3\n[3, 32, 32]": render_line(encoded, lines[-1]).permute(1, 2, 0),
        f"frozen vision encoder\n{list(image_features.shape[2:])}": image_features[0, -1],
        f"resampler\n{list(visual_tokens.shape[2:])}": visual_tokens[0, -1],
        f"attention to latents\n{list(attention.shape)}": attention,
    }
    bottom = {
        f"text tokens\n[{shape[0]}]": text,
        f"frozen blocks\n{shape}": states["x"][0],
        f"inserted layer adds\n{shape}": (states["output"] - states["x"])[0],
        "last block, logits\n→ next token": "\n".join(predictions),
    }
    figure, axes = plots.subplots(height=5, rows=2, columns=4)
    for row, stages in zip(axes, (top, bottom), strict=True):
        for axis, (label, values) in zip(row, stages.items(), strict=True):
            plots.panel(axis, label, values)
    return figure


@torch.no_grad()
def episode(model: Flamingo, tokenizer: Tokenizer, encoded: EncodedScenes) -> plots.Figure:
    """Show the images, questions and generated answers of a few episodes, line by line."""
    episodes = [episode_lines(encoded, TEST_SEED, number, len(SHOTS), held_out=True) for number in range(EPISODES)]
    batch = tokenize_episodes(episodes, tokenizer)
    rows = batch.rows
    visual_tokens = model.resample(encoded.features_of(rows.images))
    predictions = model(rows.token_ids, visual_tokens, rows.image_index, rows.segments).argmax(-1)
    images, captions, correct = [], [], []
    for number, lines in enumerate(episodes):
        for line, (first, end) in zip(lines, batch.answer_spans[number], strict=True):
            answer = tokenizer.decode(predictions[number, first - 1 : end - 1].tolist())
            images.append(render_line(encoded, line))
            captions.append(line.question.strip().replace(" ", "\n").ljust(1) + "\n→ " + answer.strip(" .\n"))
            correct.append(answer == line.answer)
    most = max(caption.count("\n") for caption in captions)
    captions = [caption.replace("\n→", "\n" * (1 + most - caption.count("\n")) + "→") for caption in captions]
    return plots.image_grid(images, captions, columns=len(SHOTS), correct=correct)


def render_line(encoded: EncodedScenes, line: Line) -> Tensor:
    """Return the image of a line as a tensor."""
    return render_tensors([encoded.scenes[line.image]])[0]


def single_attributes(run: Run) -> plots.Figure:
    """Draw the accuracy on each attribute alone, beside a linear classifier on the image features."""
    figure, axes = plots.subplots(height=2.8)
    axis = axes[0, 0]
    for place, attribute in enumerate(ATTRIBUTES):
        for name, color, offset in (("single", plots.BLUE, -0.18), ("probe", plots.GRAY, 0.18)):
            accuracy = fmean(run.measurements("flamingo", f"{name}_{attribute}"))
            axis.barh(place + offset, accuracy, height=0.34, color=color)
            axis.text(accuracy + 0.01, place + offset, f"{accuracy:.0%}", va="center", fontsize=10)
    axis.set_yticks(range(len(ATTRIBUTES)), ATTRIBUTES, color=plots.INK)
    axis.set(xlim=(0, 1.12), xlabel="accuracy")
    axis.xaxis.set_major_formatter(PercentFormatter(1.0, decimals=0))
    axis.invert_yaxis()
    axis.grid(visible=False, axis="y")
    return figure


def gates(run: Run) -> plots.Figure:
    """Draw the gate values of every inserted layer over the training steps."""
    figure, axes = plots.subplots(columns=2, height=3.4)
    for axis, (name, branch) in zip(axes[0], {"attention": "cross-attention", "mlp": "MLP"}.items(), strict=True):
        layers = sorted(key for key in run.arms[run.seeds[0]]["flamingo"] if key.startswith(f"{name}_"))
        for layer, color in zip(layers, plots.PALETTE, strict=False):
            curves = run.measurements("flamingo", layer)
            steps, values = curves[0][0], torch.tensor([curve[1] for curve in curves])
            label = f"before block {layer.split('_')[-2]}"
            axis.plot([0, *steps], [0, *values.mean(dim=0).tolist()], color=color, label=label)
        axis.set(xlabel=f"training step, {branch}", ylabel="|tanh(gate)|", ylim=(0, None))
    axes[0, 0].legend(frameon=False)
    return figure


def latents(model: Flamingo, encoded: EncodedScenes, count: int = 4) -> plots.Figure:
    """Draw the attention of each latent over some images."""
    image_features = encoded.image_features[:count]
    patches = image_features.shape[1]
    maps = model.resampler.attention_maps(image_features)[-1].mean(dim=1)[..., :patches]
    side = math.isqrt(patches)
    return plots.attention_overlay(
        list(render_tensors(encoded.scenes[:count])),
        maps.unflatten(2, (side, side)),
        captions=[f"latent {number}" for number in range(maps.shape[1])],
    )


def ablations(run: Run) -> plots.Figure:
    """Draw the accuracy of every arm, mean over all numbers of examples."""
    return plots.bars_with_intervals(
        {
            label: [fmean(run.arms[seed][arm][f"held_out_{count}"] for count in SHOTS) for seed in run.seeds]
            for label, arm in labeled_arms(run).items()
        },
        x_label="accuracy on held-out rules, mean over 0 to 8 examples",
        baselines={"no examples": fmean(run.measurements("flamingo", "held_out_0"))},
        highlight="Flamingo",
        percent=True,
    )


def forgetting(run: Run) -> plots.Figure:
    """Draw the cross-entropy of plain text after training, for every arm."""
    return plots.bars_with_intervals(
        {label: run.measurements(arm, "text_bits_after") for label, arm in labeled_arms(run).items()},
        x_label="bits per token of plain text",
        baselines={"before": fmean(run.measurements("flamingo", "text_bits_before"))},
        highlight="Flamingo",
    )


def latest_image() -> plots.Figure:
    """Draw the cross-attention mask of two documents in one row."""
    image = 9
    token_ids = torch.tensor([[1, image, 2, 3, image, 4, 1, 5, image, 2, 3, image, 6]])
    segments = torch.tensor([[0] * 6 + [1] * 7])
    matrix = cross_attention_matrix(latest_image_index(token_ids, segments, image), 4, 2)[0]
    names = {image: "<image>", 1: "begin"}
    tokens = [names.get(token_id, "text") for token_id in token_ids[0].tolist()]
    return plots.heatmap(
        matrix.float().T, row_labels=[f"image {number // 2}" for number in range(8)], column_labels=tokens
    )
