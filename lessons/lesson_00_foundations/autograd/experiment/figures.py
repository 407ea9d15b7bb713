"""The figures of the part `autograd`."""

from lessons.lesson_00_foundations.autograd.experiment.arms import ADAM, COST, DESCENT, MOMENTUM
from lessons.lesson_00_foundations.autograd.reference import Value, neuron
from shared import plots
from shared.course.lesson import Run

CAPTIONS = {
    "autograd_graph": "A neuron as a graph: each box holds a number, and below it stands the gradient of the output "
    "with respect to it.",
    "autograd_optimizers": "Training loss of three optimizers, each at the best of its learning rates.",
    "autograd_cost": "Cost of the gradient with respect to all weights, in forward passes. Finite differences would "
    "cost two forward passes per weight.",
}


def draw(run: Run) -> dict[str, plots.Figure]:
    """Draw every figure of the part."""
    return {
        "autograd_graph": draw_graph(),
        "autograd_optimizers": draw_optimizers(run),
        "autograd_cost": draw_cost(run),
    }


def draw_graph() -> plots.Figure:
    """Draw tanh(w₁x₁ + w₂x₂ + b) with the numbers and gradients that the reference computes."""
    x, w = [Value(0.5, "x₁"), Value(-1.0, "x₂")], [Value(0.8, "w₁"), Value(0.3, "w₂")]
    output = neuron(x, w, Value(0.1, "b"))
    output.backward()
    figure, axes = plots.subplots(height=3.6)
    axis = axes[0, 0]
    levels: dict[Value, int] = {}

    def place(node: Value, level: int = 0) -> None:
        levels[node] = max(level, levels.get(node, 0))
        for parent in node.parents:
            place(parent, level + 1)

    place(output)
    leaves = [node for node in levels if not node.parents]
    heights = {node: 2.0 * row for row, node in enumerate(leaves)}
    for node in sorted(levels, key=levels.__getitem__, reverse=True):
        if node.parents:
            heights[node] = sum(heights[parent] for parent in node.parents) / len(node.parents)
    for node, level in levels.items():
        for parent in node.parents:
            axis.annotate(
                "",
                (-level - 0.25, heights[node]),
                (-levels[parent] + 0.25, heights[parent]),
                arrowprops={"arrowstyle": "->", "color": plots.GRAY, "linewidth": 1.2},
            )
        color = plots.BLUE if node.parents else plots.INK
        box = {"boxstyle": "round,pad=0.35", "facecolor": "white", "edgecolor": color, "linewidth": 1.4}
        axis.text(-level, heights[node], f"{node.name}  {node.data:.2f}", ha="center", va="center", bbox=box)
        axis.text(
            -level,
            heights[node] - 0.95,
            f"{node.grad:+.2f}",
            ha="center",
            va="center",
            color=plots.VERMILION,
            fontsize=9,
        )
    axis.set(xlim=(-max(levels.values()) - 0.6, 0.6), ylim=(-1.6, max(heights.values()) + 1.0), xticks=[], yticks=[])
    axis.grid(visible=False)
    axis.spines[:].set_visible(False)
    return figure


def draw_optimizers(run: Run) -> plots.Figure:
    """Draw the loss on all training images against the steps."""
    arms = (DESCENT, MOMENTUM, ADAM)
    curves = {arm: run.measurements(arm, "training_loss_curve") for arm in arms}
    return plots.learning_curves(curves, y_label="loss on all training images", logarithmic=True)


def draw_cost(run: Run) -> plots.Figure:
    """Draw the cost of a gradient against the number of weights."""
    curves = [
        (arm["parameters"], arm["cost_in_forward_passes"]) for arm in (run.arms[seed][COST] for seed in run.seeds)
    ]
    figure = plots.learning_curves({"gradient": curves}, x_label="weights", y_label="cost in forward passes")
    figure.axes[0].set(xscale="log", ylim=(0, None))
    return figure
