"""The lesson's figures, drawn from what a run has measured and trained."""

from statistics import fmean

import torch
from matplotlib.ticker import MaxNLocator, PercentFormatter
from torch import Tensor
from torch.nn import functional as F

from data.toybox.heldout import TEST_SEED, sample_scenes
from data.toybox.tensors import normalize_pixels, render_tensors
from lessons.lesson_02_clip.experiment.contrast import CONTRASTS, small_model
from lessons.lesson_02_clip.experiment.measure import SCENES, classes_of, encoded, exam, images_of
from lessons.lesson_02_clip.experiment.pairs import CLASSES, prompt, tokens_of
from lessons.lesson_02_clip.model import CLIP
from shared import plots
from shared.course.lesson import Run
from shared.training import load_weights

CAPTIONS = {
    "data_flow": "One held-out picture and one caption on their way through the two trained towers, to the place where they meet; "
    "every panel shows the real numbers.",
    "agreement": "Eight held-out pictures and their short captions: the cosine of each with each. The model was shown neither these "
    "pictures nor these combinations of colour and shape.",
    "learning_curves": "Zero-shot accuracy on held-out combinations while it learns, against two classifiers that were given labels.",
    "contrast": "The same pairs, the same steps, the same work: what differs is how many pairs are compared with one another "
    "(mean over seeds, and the band from the least to the greatest).",
    "named": "Held-out pictures and the nearest of 64 captions.",
    "modality_gap": "Pictures and captions in the plane that shows most of their spread: untrained towers put them into two "
    "places apart; trained, they lie together, in one cluster for each of the eight combinations.",
    "temperature": "The temperature that InfoNCE learns.",
    "clothes": "Fashion-MNIST: two classes named from descriptions alone, eight seen ones, and a linear probe of what the eye has learned.",
}


def draw(run: Run) -> dict[str, plots.Figure]:
    """Every figure that the run's arms allow, the first one the lesson's face."""
    if run.data == "fashion_mnist":
        return {"clothes": clothes(run)}
    if run.data == "flickr8k":
        curves = {"photograph of a caption": measured(run, "photographs", "text_to_image_curve")}
        return {"photographs": plots.learning_curves(curves, y_label="recall at 5, held out", percent=True)}
    model = trained(run)
    return {
        "data_flow": data_flow(model),
        "agreement": agreement(model),
        "learning_curves": learning_curves(run),
        "contrast": contrast(run),
        "named": named(model),
        "modality_gap": gap(model),
        "temperature": temperature(run),
    }


def measured(run: Run, arm: str, name: str) -> list:
    """One thing that an arm has measured, for every seed."""
    return [run.arms[seed][arm][name] for seed in run.seeds]


def trained(run: Run) -> CLIP:
    """The headline's model of the first seed, as training has left it."""
    return load_weights(small_model("info-nce"), run.arm_folder(run.seeds[0], "clip")).eval()


@torch.no_grad()
def data_flow(model: CLIP) -> plots.Figure:
    """Picture → tokens → blocks → unit vector; caption → tokens → blocks → unit vector; and their logits with others."""
    classes, pictures = one_of_each()
    pixels, captions = normalize_pixels(pictures), [prompt(*CLASSES[number]) for number in classes]
    tokens = tokens_of(captions)
    tower = model.image_encoder
    states, read = tower.hidden_states(pixels[:1]), model.text_encoder.features(tokens[:1])
    embedded = model.text_encoder.embedding(tokens[:1]) + model.text_encoder.positions[: tokens.shape[1]]
    vectors = model.encode_images(pixels), model.encode_texts(tokens)
    words = captions[0].replace(" ", "\n")
    picture_row = {
        f"picture\n{list(pixels.shape[1:])}": pictures[0].permute(1, 2, 0),
        f"patches + places\n{list(states[0].shape[1:])}": states[0][0],
        f"{tower.config.depth} blocks + norm\n{list(states[-1].shape[1:])}": tower.norm(states[-1])[0],
        f"class token\n→ [{vectors[0].shape[1]}]": vectors[0][0].reshape(8, -1),
    }
    caption_row = {
        f"caption\n{tokens.shape[1]} tokens": words,
        f"words + places\n{list(embedded.shape[1:])}": embedded[0],
        f"{model.text_encoder.config.depth} blocks + norm\n{list(read.shape[1:])}": read[0],
        f"end token\n→ [{vectors[1].shape[1]}]": vectors[1][0].reshape(8, -1),
    }
    card, axes = plots.subplots(height=4.6, rows=2, columns=5)
    for row, stages in enumerate((picture_row, caption_row)):
        for axis, (name, values) in zip(axes[row], stages.items(), strict=False):
            plots.panel(axis, name, values)
    logits = model.logits(*vectors)
    plots.panel(axes[0, 4], "8 pictures ×\n8 captions", logits)
    plots.panel(axes[1, 4], "softmax of\neach row", logits.softmax(dim=1))
    return card


def one_of_each() -> tuple[list[int], Tensor]:
    """The eight held-out combinations' numbers in `CLASSES`, and a held-out picture of each, as bytes."""
    first = exam("test").classes[:, 0]
    classes = sorted(set(first.tolist()))
    rows = torch.stack([(first == number).int().argmax() for number in classes])
    return classes, render_tensors(sample_scenes("test", TEST_SEED, SCENES, (1, 1)))[rows]


@torch.no_grad()
def agreement(model: CLIP) -> plots.Figure:
    """Cosines of one held-out picture of each of the eight held-out combinations with the eight captions."""
    classes, pictures = one_of_each()
    texts = model.encode_texts(tokens_of([prompt(*CLASSES[number]) for number in classes]))
    cosines = model.encode_images(normalize_pixels(pictures)) @ texts.T
    names = [" ".join(CLASSES[number]) for number in classes]
    card, axes = plots.subplots(height=5.2, rows=1, columns=1)
    axis = axes[0, 0]
    axis.imshow(cosines, cmap=plots.DIVERGING, vmin=-1, vmax=1, aspect="equal")
    axis.grid(visible=False)
    axis.set_xticks(range(len(names)), names, rotation=40, ha="right", rotation_mode="anchor")
    axis.set_yticks([])
    for row, picture in enumerate(pictures):
        place = axis.inset_axes((-1.5, row - 0.45, 0.9, 0.9), transform=axis.transData)
        place.imshow(picture.permute(1, 2, 0), interpolation="nearest")
        place.set(xticks=[], yticks=[])
        for column, value in enumerate(cosines[row].tolist()):
            axis.text(
                column,
                row,
                f"{value:.2f}",
                ha="center",
                va="center",
                fontsize=9,
                color="white" if abs(value) > 0.6 else plots.INK,
            )
    return card


def learning_curves(run: Run) -> plots.Figure:
    """Held-out zero-shot accuracy over the steps of training."""
    arms = {"one thing a scene": "clip", "one to three things": "several things"}
    present = {name: arm for name, arm in arms.items() if arm in run.arms[run.seeds[0]]}
    return plots.learning_curves(
        {name: measured(run, arm, "zero_shot_curve") for name, arm in present.items()},
        y_label="zero-shot accuracy, held out",
        baselines={
            "two linear classifiers": fmean(measured(run, "baselines", "zero_shot")),
            "chance": run.arms[run.seeds[0]]["baselines"]["chance"],
        },
        percent=True,
    )


def contrast(run: Run) -> plots.Figure:
    """Both losses over the number of pairs that are compared with one another."""
    card, axes = plots.subplots(rows=1, columns=2, height=3.8)
    for axis, (name, title) in zip(
        axes[0],
        {"zero_shot": "zero-shot accuracy", "image_to_text": "caption of a picture, recall at 1"}.items(),
        strict=True,
    ):
        for loss, colour in (("info-nce", plots.BLUE), ("sigmoid", plots.ORANGE)):
            sizes = [size for size in CONTRASTS if f"{loss}, {size} pairs" in run.arms[run.seeds[0]]]
            values = torch.tensor([measured(run, f"{loss}, {size} pairs", name) for size in sizes])
            axis.plot(
                sizes,
                values.mean(dim=1),
                color=colour,
                marker="o",
                label={"info-nce": "InfoNCE", "sigmoid": "sigmoid"}[loss],
            )
            axis.fill_between(sizes, values.amin(dim=1), values.amax(dim=1), color=colour, alpha=0.18, linewidth=0)
        axis.set_xscale("log", base=2)
        axis.set_xticks(sizes, [str(size) for size in sizes])
        axis.set(xlabel="pairs contrasted with one another", ylabel=title)
        axis.set_ylim(0, None)
        axis.yaxis.set_major_locator(MaxNLocator(6, steps=[1, 2, 5, 10]))
        axis.yaxis.set_major_formatter(PercentFormatter(1.0, decimals=0))
    axes[0, 0].legend(frameon=False)
    return card


@torch.no_grad()
def named(model: CLIP, count: int = 18) -> plots.Figure:
    """Held-out pictures with the caption that is nearest."""
    asked = exam("test")
    found = (images_of(model, asked) @ classes_of(model).T).argmax(dim=1)
    right = found == asked.classes[:, 0]
    # Half of what is shown is wrong, as far as there is so much: mistakes tell more.
    wrong = (~right).nonzero().flatten()[: count // 3]
    rows = torch.cat([right.nonzero().flatten()[: count - len(wrong)], wrong])
    pictures = render_tensors(sample_scenes("test", TEST_SEED, SCENES, (1, 1)))[rows]
    names = [prompt(*CLASSES[number]) for number in found[rows].tolist()]
    return plots.image_grid(list(pictures), names, columns=6, correct=right[rows].tolist())


@torch.no_grad()
def gap(model: CLIP) -> plots.Figure:
    """Vectors of pictures and captions in the plane of their greatest spread, untrained and trained."""
    torch.manual_seed(0)
    asked = exam("test")
    card, axes = plots.subplots(rows=1, columns=2, height=3.6)
    for axis, (name, towers) in zip(
        axes[0], {"before training": small_model("info-nce").eval(), "after": model}.items(), strict=True
    ):
        images, texts = images_of(towers, asked), encoded(towers.encode_texts, asked.texts, towers.log_scale.device)
        both = torch.cat([images, texts])
        plane = torch.linalg.svd(both - both.mean(dim=0), full_matrices=False).Vh[:2]
        for vectors, colour, label in ((images, plots.BLUE, "pictures"), (texts, plots.ORANGE, "captions")):
            x, y = ((vectors - both.mean(dim=0)) @ plane.T).T
            axis.scatter(x, y, s=9, color=colour, alpha=0.6, linewidth=0, label=label)
        axis.set(
            xlabel=f"{name}: means {F.pairwise_distance(images.mean(0), texts.mean(0)):.2f} apart",
            xlim=(-1.1, 1.1),
            ylim=(-1.1, 1.1),
            aspect="equal",
        )
    axes[0, 0].legend(frameon=False, loc="upper left")
    return card


def temperature(run: Run) -> plots.Figure:
    """One over the learned scale, over the steps."""

    def temperatures(curve):
        return curve[0], [1 / scale for scale in curve[1]]

    names = {"64 pairs": "clip", "4 pairs": "info-nce, 4 pairs"}
    return plots.learning_curves(
        {name: [temperatures(curve) for curve in measured(run, arm, "scale_curve")] for name, arm in names.items()},
        y_label="temperature",
        baselines={"where all begin": 0.07},
    )


def clothes(run: Run) -> plots.Figure:
    """What the arm on real clothes has measured."""
    names = {
        "two classes held out, zero-shot": "zero_shot_held_out",
        "eight classes seen, zero-shot": "zero_shot_seen",
        "linear probe of the eye": "linear_probe",
        "linear probe of the pixels": "linear_probe_of_pixels",
    }
    return plots.bars_with_intervals(
        {name: measured(run, "clothes", key) for name, key in names.items()},
        x_label="held-out pictures named rightly",
        baselines={"chance": 0.1},
        highlight="two classes held out, zero-shot",
        percent=True,
    )
