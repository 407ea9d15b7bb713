"""The lesson's figures, drawn from what a run has measured and trained."""

import math
from collections.abc import Sequence
from statistics import fmean

import torch
from matplotlib.ticker import PercentFormatter
from torch import Tensor

from data.toybox.tensors import render_tensors
from lessons.lesson_00_foundations.decoder.model.toy_decoder import load_language_model
from lessons.lesson_02_clip.model.pretrained import load_vision_encoder
from lessons.lesson_04_flamingo.experiment.episodes import KINDS, Gallery, Line, laid_out, lines_of
from lessons.lesson_04_flamingo.experiment.few_shot import small_flamingo
from lessons.lesson_04_flamingo.experiment.measure import MIXED, SHOTS, TEST_SEED
from lessons.lesson_04_flamingo.model import Flamingo, latest_image, sees
from shared import plots
from shared.course.lesson import Run
from shared.tokenizers import Tokenizer
from shared.training import load_weights

CAPTIONS = {
    "shots": "Accuracy by the number of examples in the prompt, with rules that no training had: in images; with images exchanged "
    "for another prompt's; and with examples that follow other rules. Dashed lines are the same game in words, played by the "
    "language model alone, and the best possible guess.",
    "data_flow": "The last of three lines on its way through a trained model. Above, the picture becomes latents; every word looks "
    "at those of its latest image. Below, the words: what one door adds to them, and which word is likeliest in the end.",
    "episode": "Three prompts with held-out rules, as the trained model reads them from left to right. Under each picture: what "
    "is asked for, and what it answers from the lines before.",
    "reading": "Asked for one kind alone, no rule is needed, only an eye: how often the answer is right. Gray, a linear classifier "
    "of what the eye has made of the same images.",
    "gates": "How far each gate opens while it learns (mean of |tanh|): all begin at zero. Left, looking; right, thinking about it.",
    "latents": "Where on the picture each latent looks, in the last block of the resampler (mean of its heads). What it gathers from the "
    "class token and from other latents is not shown.",
    "ablations": "Held-out rules, mean over all numbers of examples: with gates, without, and with a language model that learns along.",
    "forgetting": "What a token of plain text costs before the training, and after it.",
    "latest_image": "Which latents each word sees, in a row of two documents with two images each (two latents an image).",
}
ARMS = {
    "Flamingo": "flamingo",
    "one number a gate": "scalar gates",
    "without gates": "without gates",
    "language model learns along": "language learns",
    "episodes alone, no text": "episodes alone",
}
SHOWN = 3  # episodes


def draw(run: Run) -> dict[str, plots.Figure]:
    """Every figure that the run's arms allow, the first one the lesson's face."""
    model, tokenizer = trained(run)
    gallery = Gallery.of(model.vision, TEST_SEED, 600, "cpu")
    return {
        "shots": shots(run),
        "data_flow": data_flow(model, tokenizer, gallery),
        "episode": episode(model, tokenizer, gallery),
        "reading": reading(run),
        "gates": gates(run),
        "latents": latents(model, gallery),
        "ablations": ablations(run),
        "forgetting": forgetting(run),
        "latest_image": looks(),
    }


def trained(run: Run) -> tuple[Flamingo, Tokenizer]:
    """The headline's model of the first seed, as training has left it."""
    language, tokenizer = load_language_model()
    found = run.arms[run.seeds[0]]["flamingo"]
    model = small_flamingo(load_vision_encoder(), language, latents=found["latents"], depth=found["depth"])
    return load_weights(model, run.arm_folder(run.seeds[0], "flamingo")).eval(), tokenizer


def measured(run: Run, arm: str, name: str) -> list:
    """One thing that an arm has measured, for every seed."""
    return [run.arms[seed][arm][name] for seed in run.seeds]


def arms_of(run: Run) -> dict[str, str]:
    """The arms of this run: what a figure calls each, and its name."""
    return {name: arm for name, arm in ARMS.items() if arm in run.arms[run.seeds[0]]}


def shots(run: Run) -> plots.Figure:
    """More examples, more right answers; and what it can't be due to."""

    def curves(name: str, counts: Sequence[int]) -> list[tuple[list[int], list[float]]]:
        return [
            (list(counts), [run.arms[seed]["flamingo"][f"{name}_{count}"] for count in counts]) for seed in run.seeds
        ]

    card = plots.learning_curves(
        {
            "images": curves("held_out", SHOTS),
            "images exchanged": curves("blind", SHOTS),
            "examples of\nother rules": curves("mixed", MIXED),
        },
        x_label="examples in the prompt",
        y_label="right to the last token",
        percent=True,
    )
    axis = card.axes[0]
    for name, label, style in (
        ("best", "the best possible guess", ":"),
        ("told", "the language model, in words", "--"),
    ):
        values = [fmean(measured(run, "flamingo", f"{name}_{count}")) for count in SHOTS]
        axis.plot(SHOTS, values, color=plots.GRAY, linestyle=style, linewidth=1.4, label=label)
    axis.legend(frameon=False, loc="center right", bbox_to_anchor=(1, 0.58))
    axis.set_ylim(0, 1)
    return card


@torch.no_grad()
def data_flow(model: Flamingo, tokenizer: Tokenizer, gallery: Gallery) -> plots.Figure:
    """Picture → the eye's tokens → latents; words → what a door adds → the likeliest next word."""
    lines = lines_of(gallery, TEST_SEED, 0, 3, held_out=True)
    rows = laid_out([lines], tokenizer).rows
    asked = len(tokenizer.encode(lines[-1].answer))
    rows = rows._replace(tokens=rows.tokens[:, :-asked], looks=rows.looks[:, :-asked])
    features = gallery.seen(rows.images)
    media, door, kept = model.media(features), model.inserted[-1], {}
    hook = door.register_forward_hook(lambda _, given, out: kept.update(x=given[0], seen=given[2], out=out))
    chances, words = model(rows.tokens, media, rows.looks)[0, -1].softmax(-1).topk(4)
    hook.remove()
    looked = door.attention.weights(door.attention_norm(kept["x"]), media.flatten(1, 2), mask=kept["seen"])[0].mean(
        dim=0
    )
    said = [
        f"{tokenizer.decode([word])} {chance:.0%}"
        for word, chance in zip(words.tolist(), chances.tolist(), strict=True)
    ]
    text = tokenizer.decode(rows.tokens[0, 1:].tolist()).replace("<image>", "\n<image>\n").replace("\n\n", "\n").strip()
    shape = [rows.tokens.shape[1], kept["x"].shape[2]]
    above = {
        "picture 3 of 3\n[3, 32, 32]": picture_of(gallery, lines[-1]).permute(1, 2, 0),
        f"frozen eye\n{list(features.shape[2:])}": features[0, -1],
        f"resampler\n{list(media.shape[2:])}": media[0, -1],
        f"who looks where\n{list(looked.shape)}": looked,
    }
    below = {
        f"words\n[{shape[0]}]": text,
        f"frozen blocks\n{shape}": kept["x"][0],
        f"what a door adds\n{shape}": (kept["out"] - kept["x"])[0],
        "last block, logits\n→ next word": "\n".join(said),
    }
    card, axes = plots.subplots(height=5, rows=2, columns=4)
    for row, stages in zip(axes, (above, below), strict=True):
        for axis, (name, values) in zip(row, stages.items(), strict=True):
            plots.panel(axis, name, values)
    return card


@torch.no_grad()
def episode(model: Flamingo, tokenizer: Tokenizer, gallery: Gallery) -> plots.Figure:
    """What is shown, what is asked, and what the trained model answers, line by line."""
    episodes = [lines_of(gallery, TEST_SEED, number, len(SHOTS), held_out=True) for number in range(SHOWN)]
    asked = laid_out(episodes, tokenizer)
    rows = asked.rows
    guesses = model(rows.tokens, model.media(gallery.seen(rows.images)), rows.looks, rows.segments).argmax(-1)
    pictures, captions, right = [], [], []
    for number, lines in enumerate(episodes):
        for line, (first, last) in zip(lines, asked.answers[number], strict=True):
            said = tokenizer.decode(guesses[number, first - 1 : last - 1].tolist())
            pictures.append(picture_of(gallery, line))
            captions.append(line.question.strip().replace(" ", "\n").ljust(1) + "\n→ " + said.strip(" .\n"))
            right.append(said == line.answer)
    most = max(caption.count("\n") for caption in captions)
    captions = [caption.replace("\n→", "\n" * (1 + most - caption.count("\n")) + "→") for caption in captions]
    return plots.image_grid(pictures, captions, columns=len(SHOTS), correct=right)


def picture_of(gallery: Gallery, line: Line) -> Tensor:
    return render_tensors([gallery.scenes[line.image]])[0]


def reading(run: Run) -> plots.Figure:
    """What it reads off an image, kind by kind, beside what a linear classifier reads of the same tokens."""
    card, axes = plots.subplots(height=2.8)
    axis = axes[0, 0]
    for place, kind in enumerate(KINDS):
        for name, colour, offset in (("reads", plots.BLUE, -0.18), ("probe", plots.GRAY, 0.18)):
            values = measured(run, "flamingo", f"{name}_{kind}")
            axis.barh(place + offset, fmean(values), height=0.34, color=colour)
            axis.text(fmean(values) + 0.01, place + offset, f"{fmean(values):.0%}", va="center", fontsize=10)
    axis.set_yticks(range(len(KINDS)), KINDS, color=plots.INK)
    axis.set(xlim=(0, 1.12), xlabel="read rightly")
    axis.xaxis.set_major_formatter(PercentFormatter(1.0, decimals=0))
    axis.invert_yaxis()
    axis.grid(visible=False, axis="y")
    return card


def gates(run: Run) -> plots.Figure:
    """Every layer's gate on what is seen, and on what is thought of it."""
    card, axes = plots.subplots(columns=2, height=3.4)
    for axis, (name, title) in zip(
        axes[0], {"attention": "cross-attention", "mlp": "feed-forward"}.items(), strict=True
    ):
        layers = sorted(key for key in run.arms[run.seeds[0]]["flamingo"] if key.startswith(f"{name}_"))
        for layer, colour in zip(layers, plots.PALETTE, strict=False):
            curves = measured(run, "flamingo", layer)
            steps, values = curves[0][0], torch.tensor([curve[1] for curve in curves])
            axis.plot(
                [0, *steps],
                [0, *values.mean(dim=0).tolist()],
                color=colour,
                label=f"before block {layer.split('_')[-2]}",
            )
        axis.set(xlabel=f"training step, {title}", ylabel="|tanh(gate)|", ylim=(0, None))
    axes[0, 0].legend(frameon=False)
    return card


def latents(model: Flamingo, gallery: Gallery, pictures: int = 4) -> plots.Figure:
    """Where the latents look."""
    features = gallery.features[:pictures]
    first, tokens = model.vision.prefix_tokens, features.shape[1]
    maps = model.resampler.attention_maps(features)[-1].mean(dim=1)[..., first:tokens]
    side = math.isqrt(tokens - first)
    return plots.attention_overlay(
        list(render_tensors(gallery.scenes[:pictures])),
        maps.unflatten(2, (side, side)),
        captions=[f"latent {number}" for number in range(maps.shape[1])],
    )


def ablations(run: Run) -> plots.Figure:
    """What gates and freezing are for, on the task."""
    return plots.bars_with_intervals(
        {
            name: [fmean(run.arms[seed][arm][f"held_out_{count}"] for count in SHOTS) for seed in run.seeds]
            for name, arm in arms_of(run).items()
        },
        x_label="right on held-out rules, mean of 0 to 8 examples",
        baselines={"no examples": fmean(measured(run, "flamingo", "held_out_0"))},
        highlight="Flamingo",
        percent=True,
    )


def forgetting(run: Run) -> plots.Figure:
    """… and on what the language model could do before."""
    return plots.bars_with_intervals(
        {name: measured(run, arm, "text_bits_after") for name, arm in arms_of(run).items()},
        x_label="bits a token of text",
        baselines={"before": fmean(measured(run, "flamingo", "text_bits_before"))},
        highlight="Flamingo",
    )


def looks() -> plots.Figure:
    """Two documents in one row: words see their latest image, and no document sees another's."""
    image = 9
    tokens = torch.tensor([[1, image, 2, 3, image, 4, 1, 5, image, 2, 3, image, 6]])
    segments = torch.tensor([[0] * 6 + [1] * 7])
    seen = sees(latest_image(tokens, segments, image), 4, 2)[0]
    words = ["<image>" if token == image else "begin" if token == 1 else "word" for token in tokens[0].tolist()]
    latents = [f"image {number // 2}" for number in range(8)]
    return plots.heatmap(seen.float().T, row_labels=latents, column_labels=words)
