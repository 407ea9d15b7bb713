"""The figures of the part `autograd`."""

from lessons.lesson_00_foundations.autograd.reference import Value, neuron
from shared import plots
from shared.course.lesson import Run

CAPTIONS = {
    "autograd_graph": "A neuron as a graph: in each box the number, below it how fast the output changes with it.",
    "autograd_optimizers": "Training loss of three ways to take a step, each at the best of its learning rates.",
    "autograd_cost": "What the gradient by all weights costs, in forward passes; pushing each weight would cost two for each.",
}


def draw(run: Run) -> dict[str, plots.Figure]:
    """Every figure of the part."""
    return {"autograd_graph": graph(), "autograd_optimizers": optimizers(run), "autograd_cost": cost(run)}


def graph() -> plots.Figure:
    """tanh(w₁x₁ + w₂x₂ + b) with numbers and gradients, computed by the reference."""
    x, w = [Value(0.5, "x₁"), Value(-1.0, "x₂")], [Value(0.8, "w₁"), Value(0.3, "w₂")]
    outcome = neuron(x, w, Value(0.1, "b"))
    outcome.backward()
    card, axes = plots.subplots(height=3.6)
    axis = axes[0, 0]
    levels: dict[Value, int] = {}

    def place(node: Value, level: int = 0) -> None:
        levels[node] = max(level, levels.get(node, 0))
        for parent in node.parents:
            place(parent, level + 1)

    place(outcome)
    leaves = [node for node in levels if not node.parents]
    heights = {node: 2.0 * row for row, node in enumerate(leaves)}
    for node in sorted(levels, key=levels.get, reverse=True):
        if node.parents:
            heights[node] = sum(heights[parent] for parent in node.parents) / len(node.parents)
    for node, level in levels.items():
        for parent in node.parents:
            axis.annotate(
                "", (-level - 0.25, heights[node]), (-levels[parent] + 0.25, heights[parent]),
                arrowprops={"arrowstyle": "->", "color": plots.GRAY, "linewidth": 1.2},
            )  # fmt: skip
        colour = plots.BLUE if node.parents else plots.INK
        box = {"boxstyle": "round,pad=0.35", "facecolor": "white", "edgecolor": colour, "linewidth": 1.4}
        axis.text(-level, heights[node], f"{node.name}  {node.data:.2f}", ha="center", va="center", bbox=box)
        axis.text(
            -level,
            heights[node] - 0.95,
            f"{node.grad:+.2f}",
            ha="center",
            va="center",
            color=plots.VERMILLION,
            fontsize=9,
        )
    axis.set(xlim=(-max(levels.values()) - 0.6, 0.6), ylim=(-1.6, max(heights.values()) + 1.0), xticks=[], yticks=[])
    axis.grid(visible=False)
    axis.spines[:].set_visible(False)
    return card


def optimizers(run: Run) -> plots.Figure:
    """Loss on all training images over the steps."""
    arms = ("descent", "descent with momentum", "Adam")
    curves = {arm: [run.arms[seed][arm]["training_loss_curve"] for seed in run.seeds] for arm in arms}
    return plots.learning_curves(curves, y_label="loss on all training images", logarithmic=True)


def cost(run: Run) -> plots.Figure:
    """The price of a gradient against the number of weights."""
    curves = [
        (arm["parameters"], arm["cost_in_forward_passes"])
        for arm in (run.arms[seed]["cost of a gradient"] for seed in run.seeds)
    ]
    card = plots.learning_curves({"backwards": curves}, x_label="weights", y_label="cost in forward passes")
    card.axes[0].set(xscale="log", ylim=(0, None))
    return card
