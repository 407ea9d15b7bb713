"""The lesson's figures, drawn from the measurements and the trained models of a run."""

from statistics import fmean

import torch
from matplotlib.ticker import MaxNLocator, PercentFormatter
from torch import Tensor
from torch.nn import functional as F

from data.toybox.heldout import TEST_SEED, sample_scenes
from data.toybox.tensors import normalize_pixels, render_tensors
from lessons.lesson_02_clip.experiment.arms import CONTRASTS
from lessons.lesson_02_clip.experiment.data import CLASSES, EVALUATION_SCENES, class_prompt, evaluation_set, tokenize
from lessons.lesson_02_clip.experiment.evaluate import encode_captions, encode_classes, encode_scenes
from lessons.lesson_02_clip.experiment.train import small_clip
from lessons.lesson_02_clip.model import CLIP
from lessons.lesson_02_clip.model.zero_shot import classify
from shared import plots
from shared.course.lesson import Run
from shared.training import load_weights

CAPTIONS = {
    "data_flow": "One held-out image and one caption in the two trained encoders, up to the common space: every panel "
    "shows the actual values.",
    "similarity": "Eight held-out images and their short captions: the cosine similarity of each image and caption. "
    "Neither the images nor their color–shape combinations were in training.",
    "learning_curves": "Zero-shot accuracy on unseen combinations during training, against two classifiers trained "
    "with labels.",
    "contrast": "The same pairs, steps and computation: only the number of pairs that are contrasted with each other "
    "differs (mean over seeds, and the band from minimum to maximum).",
    "zero_shot": "Held-out images and the most similar of 64 captions.",
    "modality_gap": "Images and captions in the plane of their largest variance: untrained encoders separate images "
    "from captions; trained ones put them together, with one cluster for each of the eight combinations.",
    "temperature": "The temperature that InfoNCE learns.",
    "fashion_mnist": "Fashion-MNIST: two held-out classes predicted from descriptions alone, eight seen classes, and a "
    "linear probe of the image encoder.",
}


def draw_figures(run: Run) -> dict[str, plots.Figure]:
    """Draw every figure that the run's arms allow; the first one represents the lesson."""
    if run.data == "fashion_mnist":
        return {"fashion_mnist": draw_fashion_mnist(run)}
    if run.data == "flickr8k":
        curves = {"photograph of a caption": run.measurements("photographs", "text_to_image_curve")}
        return {"photographs": plots.learning_curves(curves, y_label="recall at 5, held out", percent=True)}
    model = trained_model(run)
    return {
        "data_flow": draw_data_flow(model),
        "similarity": draw_similarity(model),
        "learning_curves": draw_learning_curves(run),
        "contrast": draw_contrast(run),
        "zero_shot": draw_zero_shot(model),
        "modality_gap": draw_modality_gap(model),
        "temperature": draw_temperature(run),
    }


def trained_model(run: Run) -> CLIP:
    """Return the headline arm's trained model of the first seed."""
    return load_weights(small_clip(), run.arm_folder(run.seeds[0], "clip")).eval()


def held_out_pixels(rows: Tensor) -> Tensor:
    """Render the held-out scenes of these rows of `evaluation_set("test")`, as bytes."""
    return render_tensors(sample_scenes("test", TEST_SEED, EVALUATION_SCENES, (1, 1)))[rows]


def one_of_each_class() -> tuple[list[int], Tensor]:
    """Return the held-out combinations as indices into `CLASSES`, and a held-out image of each, as bytes."""
    labels = evaluation_set("test").classes[:, 0]
    classes = sorted(set(labels.tolist()))
    return classes, held_out_pixels(torch.stack([(labels == label).int().argmax() for label in classes]))


@torch.no_grad()
def draw_data_flow(model: CLIP) -> plots.Figure:
    """Draw image and caption → tokens → blocks → unit vectors, and the logits of eight images and captions."""
    classes, images = one_of_each_class()
    pixels, captions = normalize_pixels(images), [class_prompt(*CLASSES[label]) for label in classes]
    token_ids = tokenize(captions)
    image_encoder, text_encoder = model.image_encoder, model.text_encoder
    states, text_features = image_encoder.hidden_states(pixels[:1]), text_encoder.features(token_ids[:1])
    embedded = text_encoder.embedding(token_ids[:1]) + text_encoder.positions[: token_ids.shape[1]]
    vectors = model.encode_images(pixels), model.encode_texts(token_ids)
    image_stages = {
        f"image\n{list(pixels.shape[1:])}": images[0].permute(1, 2, 0),
        f"patches + positions\n{list(states[0].shape[1:])}": states[0][0],
        f"{image_encoder.config.depth} blocks + norm\n{list(states[-1].shape[1:])}": image_encoder.norm(states[-1])[0],
        f"class token\n→ [{vectors[0].shape[1]}]": vectors[0][0].reshape(8, -1),
    }
    caption_stages = {
        f"caption\n{token_ids.shape[1]} tokens": captions[0].replace(" ", "\n"),
        f"words + positions\n{list(embedded.shape[1:])}": embedded[0],
        f"{text_encoder.config.depth} blocks + norm\n{list(text_features.shape[1:])}": text_features[0],
        f"end token\n→ [{vectors[1].shape[1]}]": vectors[1][0].reshape(8, -1),
    }
    figure, axes = plots.subplots(height=4.6, rows=2, columns=5)
    for row, stages in enumerate((image_stages, caption_stages)):
        for axis, (name, values) in zip(axes[row], stages.items(), strict=False):
            plots.panel(axis, name, values)
    logits = model.logits(*vectors)
    plots.panel(axes[0, 4], "8 images ×\n8 captions", logits)
    plots.panel(axes[1, 4], "softmax of\neach row", logits.softmax(dim=1))
    return figure


@torch.no_grad()
def draw_similarity(model: CLIP) -> plots.Figure:
    """Draw the cosine similarity of one image of each held-out combination and the eight captions."""
    classes, images = one_of_each_class()
    texts = model.encode_texts(tokenize([class_prompt(*CLASSES[label]) for label in classes]))
    cosines = model.encode_images(normalize_pixels(images)) @ texts.T
    names = [" ".join(CLASSES[label]) for label in classes]
    figure, axes = plots.subplots(height=5.2, rows=1, columns=1)
    axis = axes[0, 0]
    axis.imshow(cosines, cmap=plots.DIVERGING, vmin=-1, vmax=1, aspect="equal")
    axis.grid(visible=False)
    axis.set_xticks(range(len(names)), names, rotation=40, ha="right", rotation_mode="anchor")
    axis.set_yticks([])
    for row, image in enumerate(images):
        inset = axis.inset_axes((-1.5, row - 0.45, 0.9, 0.9), transform=axis.transData)
        inset.imshow(image.permute(1, 2, 0), interpolation="nearest")
        inset.set(xticks=[], yticks=[])
        for column, value in enumerate(cosines[row].tolist()):
            color = "white" if abs(value) > 0.6 else plots.INK
            axis.text(column, row, f"{value:.2f}", ha="center", va="center", fontsize=9, color=color)
    return figure


def draw_learning_curves(run: Run) -> plots.Figure:
    """Draw zero-shot accuracy on unseen combinations during training."""
    arms = {"one object per scene": "clip", "one to three objects": "several objects"}
    trained_arms = {name: arm for name, arm in arms.items() if arm in run.arms[run.seeds[0]]}
    return plots.learning_curves(
        {name: run.measurements(arm, "zero_shot_curve") for name, arm in trained_arms.items()},
        y_label="zero-shot accuracy, held out",
        baselines={
            "two linear classifiers": fmean(run.measurements("baselines", "zero_shot")),
            "chance": run.arms[run.seeds[0]]["baselines"]["chance"],
        },
        percent=True,
    )


def draw_contrast(run: Run) -> plots.Figure:
    """Draw both losses over the number of pairs that are contrasted with each other."""
    figure, axes = plots.subplots(rows=1, columns=2, height=3.8)
    titles = {"zero_shot": "zero-shot accuracy", "image_to_text": "caption of an image, recall at 1"}
    losses = {"info-nce": ("InfoNCE", plots.BLUE), "sigmoid": ("sigmoid", plots.ORANGE)}
    for axis, (name, title) in zip(axes[0], titles.items(), strict=True):
        for loss, (label, color) in losses.items():
            sizes = [size for size in CONTRASTS if f"{loss}, {size} pairs" in run.arms[run.seeds[0]]]
            values = torch.tensor([run.measurements(f"{loss}, {size} pairs", name) for size in sizes])
            axis.plot(sizes, values.mean(dim=1), color=color, marker="o", label=label)
            axis.fill_between(sizes, values.amin(dim=1), values.amax(dim=1), color=color, alpha=0.18, linewidth=0)
        axis.set_xscale("log", base=2)
        drawn = [size for size in CONTRASTS if f"info-nce, {size} pairs" in run.arms[run.seeds[0]]]
        axis.set_xticks(drawn, [str(size) for size in drawn])
        axis.set(xlabel="pairs contrasted with each other", ylabel=title)
        axis.set_ylim(0, None)
        axis.yaxis.set_major_locator(MaxNLocator(6, steps=[1, 2, 5, 10]))
        axis.yaxis.set_major_formatter(PercentFormatter(1.0, decimals=0))
    axes[0, 0].legend(frameon=False)
    return figure


@torch.no_grad()
def draw_zero_shot(model: CLIP, count: int = 18) -> plots.Figure:
    """Draw held-out images with the most similar caption; up to a third of them are errors."""
    scenes = evaluation_set("test")
    predictions = classify(encode_scenes(model, scenes), encode_classes(model))
    correct = predictions == scenes.classes[:, 0]
    errors = (~correct).nonzero().flatten()[: count // 3]
    rows = torch.cat([correct.nonzero().flatten()[: count - len(errors)], errors])
    names = [class_prompt(*CLASSES[label]) for label in predictions[rows].tolist()]
    return plots.image_grid(list(held_out_pixels(rows)), names, columns=6, correct=correct[rows].tolist())


@torch.no_grad()
def draw_modality_gap(model: CLIP) -> plots.Figure:
    """Draw vectors of images and captions in the plane of their largest variance, untrained and trained."""
    torch.manual_seed(0)
    scenes = evaluation_set("test")
    figure, axes = plots.subplots(rows=1, columns=2, height=3.6)
    models = {"before training": small_clip().eval(), "after": model}
    for axis, (name, encoders) in zip(axes[0], models.items(), strict=True):
        images, texts = encode_scenes(encoders, scenes), encode_captions(encoders, scenes)
        both = torch.cat([images, texts])
        plane = torch.linalg.svd(both - both.mean(dim=0), full_matrices=False).Vh[:2]
        for vectors, color, label in ((images, plots.BLUE, "images"), (texts, plots.ORANGE, "captions")):
            x, y = ((vectors - both.mean(dim=0)) @ plane.T).T
            axis.scatter(x, y, s=9, color=color, alpha=0.6, linewidth=0, label=label)
        axis.set(
            xlabel=f"{name}: distance of means {F.pairwise_distance(images.mean(0), texts.mean(0)):.2f}",
            xlim=(-1.1, 1.1),
            ylim=(-1.1, 1.1),
            aspect="equal",
        )
    axes[0, 0].legend(frameon=False, loc="upper left")
    return figure


def draw_temperature(run: Run) -> plots.Figure:
    """Draw the temperature, one over the learned scale, during training."""
    arms = {"64 pairs": "clip", "4 pairs": "info-nce, 4 pairs"}
    curves = {
        name: [(steps, [1 / scale for scale in scales]) for steps, scales in run.measurements(arm, "scale_curve")]
        for name, arm in arms.items()
    }
    return plots.learning_curves(curves, y_label="temperature", baselines={"initial value": 0.07})


def draw_fashion_mnist(run: Run) -> plots.Figure:
    """Draw the accuracies of the arm on Fashion-MNIST."""
    names = {
        "two classes held out, zero-shot": "zero_shot_held_out",
        "eight classes seen, zero-shot": "zero_shot_seen",
        "linear probe of the image encoder": "linear_probe",
        "linear probe of the pixels": "linear_probe_of_pixels",
    }
    return plots.bars_with_intervals(
        {name: run.measurements("fashion-mnist", key) for name, key in names.items()},
        x_label="held-out images classified correctly",
        baselines={"chance": 0.1},
        highlight="two classes held out, zero-shot",
        percent=True,
    )
