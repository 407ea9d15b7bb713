"""The claims of lesson 10; each reads measurements of arms.py."""

from data.toybox.scene import SHAPES
from lessons.lesson_10_internvl.experiment.arms import TESTED
from shared.course.claims import Measure, difference, number
from shared.course.lesson import Arms, Claim, question
from shared.course.splits import on_splits

NATIVE, V2PE, MPO = "arXiv:2504.10479, section 2.2", "arXiv:2412.09616", "arXiv:2411.10442"
ROUTER, DEPLOYMENT = "arXiv:2510.12793", "arXiv:2508.18265"
CHANCE = 1 / len(SHAPES)
"""Expected accuracy of a random shape, on sequences of images."""
FACTORS = {images: images // TESTED[0] for images in TESTED[1:]}


def step_gain(images: int) -> Measure:
    """Return a measure of the accuracy of one model at the chosen δ minus that at δ = 1."""
    return lambda arms: arms["v2pe"][f"{images}_chosen"] - arms["v2pe"][f"{images}x1_all"]


def against_fixed(arms: Arms) -> float:
    """Return the accuracy of V2PE at the chosen δ minus that of the model trained and tested with δ = 1."""
    return arms["v2pe"][f"{TESTED[-1]}_chosen"] - arms["fixed step"][f"{TESTED[-1]}x1_all"]


def lost_when_longer(arms: Arms) -> float:
    """Return the accuracy of V2PE on the longest sequences at the chosen δ minus that at training length with δ = 1."""
    return arms["v2pe"][f"{TESTED[-1]}_chosen"] - arms["v2pe"][f"{TESTED[0]}x1_all"]


def measure_within(arm: str, one: str, other: str) -> Measure:
    """Return a measure of the difference between two measurements of one arm."""
    return lambda arms: arms[arm][one] - arms[arm][other]


EXACT = tuple(
    Claim(name, "exact", sentence, source, (arm,), number(arm, measured), limit, "error", at_least=False)
    for name, sentence, source, arm, measured, limit in (
        (
            "unshuffle-loses-nothing",
            "Grids of patches are put together again from their unshuffled squares (largest difference).",
            "arXiv:2404.16821",
            "exact",
            "unshuffle_difference",
            0.0,
        ),
        (
            "step-one-is-rotary",
            "Angles of V2PE with δ = 1 equal those of ordinary rotary encoding (largest difference).",
            "arXiv:2504.10479, section 2.1",
            "exact",
            "rotary_difference",
            0.0,
        ),
        (
            "last-position",
            "Sequences whose last position is not (text tokens − 1) + δ · visual tokens, of 100.",
            "arXiv:2504.10479, section 2.1",
            "exact",
            "position_mismatches",
            0.0,
        ),
        (
            "square-averaging",
            "Square averaging over tokens equals the mean over samples weighted by √length (largest difference).",
            NATIVE,
            "exact",
            "averaging_difference",
            1e-6,
        ),
        (
            "mixture-of-tokens",
            "Expected token fractions equal the requested ones (largest difference).",
            NATIVE,
            "exact",
            "mixture_difference",
            1e-12,
        ),
        (
            "reference-equals-model",
            "The pure-Python rotation at V2PE positions equals the PyTorch one (largest difference).",
            "reference.py",
            "exact",
            "reference_difference",
            1e-9,
        ),
        (
            "same-answers",
            "Answers of the two-process deployment that differ from those of one process.",
            DEPLOYMENT,
            "deployment",
            "different_answers",
            0.0,
        ),
    )
)

MIXING = question(
    "Does text alone in the mixture keep the language skills?",
    Claim(
        "mixing-keeps-text",
        "paper",
        "Cross-entropy of text, training on images only − mixed from the start, equal tokens (bits per token).",
        NATIVE,
        ("mixed", "multimodal only"),
        difference("multimodal only", "mixed", "text_bits"),
        0.1,
        "number",
    ),
    Claim(
        "mixing-keeps-few-shot",
        "paper",
        "Few-shot accuracy in text with held-out rules, mixed from the start − training on images only, equal tokens.",
        NATIVE,
        ("mixed", "multimodal only"),
        difference("mixed", "multimodal only", "few_shot"),
        0.02,
        "points",
    ),
    Claim(
        "mixing-answers",
        "paper",
        "Accuracy on images with unseen combinations, mixed from the start − training on images only, equal tokens.",
        NATIVE,
        ("mixed", "multimodal only"),
        difference("mixed", "multimodal only", "answers"),
        -0.05,
        "points",
        expected="inconclusive",
    ),
)

ORDER = question(
    "Does it matter when the text comes?",
    Claim(
        "order-answers",
        "paper",
        "Accuracy on images with unseen combinations, mixed from the start − the same images first and then the same "
        "texts.",
        NATIVE,
        ("mixed", "post-hoc"),
        difference("mixed", "post-hoc", "answers"),
        0.0,
        "points",
    ),
    Claim(
        "order-text",
        "paper",
        "Cross-entropy of text, images then text − mixed (bits per token).",
        NATIVE,
        ("mixed", "post-hoc"),
        difference("post-hoc", "mixed", "text_bits"),
        0.1,
        "number",
        at_least=False,
        presets=("cpu",),
    ),
)

LONGER = question(
    "Does δ < 1 raise accuracy beyond the training length?",
    Claim(
        "trained-length",
        "learns",
        f"Accuracy on sequences of {TESTED[0]} images, the most in training, δ = 1.",
        V2PE,
        ("v2pe",),
        number("v2pe", f"{TESTED[0]}x1_all"),
        0.7,
        baseline=lambda arms: CHANCE,
        baseline_name="chance",
    ),
    *(
        Claim(
            f"smaller-step-{factor}x",
            "paper",
            f"Accuracy on sequences of {images} images, {factor} times the most in training, chosen δ − δ = 1, one "
            "model.",
            V2PE,
            ("v2pe",),
            step_gain(images),
            0.1,
            "points",
        )
        for images, factor in FACTORS.items()
    ),
    Claim(
        "longest-against-trained",
        "paper",
        f"Accuracy on sequences of {TESTED[-1]} images at the chosen δ − on {TESTED[0]} images with δ = 1, one model.",
        V2PE,
        ("v2pe",),
        lost_when_longer,
        0.0,
        "points",
        presets=(),
    ),
    Claim(
        "against-fixed-step",
        "paper",
        f"Accuracy on sequences of {TESTED[-1]} images, δ drawn in training and chosen at test − δ = 1 in both.",
        V2PE,
        ("v2pe", "fixed step"),
        against_fixed,
        0.1,
        "points",
        presets=("full",),
    ),
)

ROUTING = question(
    "Does the router compress the right images?",
    Claim(
        "router-beats-chance",
        "paper",
        "Accuracy with half of the images compressed, those chosen by the router − random ones.",
        ROUTER,
        ("router",),
        measure_within("router", "routed_50", "random_50"),
        0.0,
        "points",
        presets=("full",),
    ),
    Claim(
        "router-loses-little",
        "paper",
        "Accuracy with the router's own decisions − with all visual tokens.",
        ROUTER,
        ("router",),
        measure_within("router", "routed", "full"),
        -0.03,
        "points",
        presets=("full",),
    ),
    Claim(
        "router-saves",
        "paper",
        "Fraction of the visual tokens that the router's own decisions save.",
        ROUTER,
        ("router",),
        number("router", "saved"),
        0.0,
        paper_value="up to 50 % (abstract)",
        presets=(),
    ),
)

PREFERENCES = question(
    "Does MPO gain more than fine-tuning on the same answers?",
    Claim(
        "mpo-gains",
        "paper",
        "Accuracy on images with unseen combinations, MPO − fine-tuning on the preferred answers, equal optimizer "
        "steps.",
        MPO,
        ("mpo", "fine-tuning"),
        difference("mpo", "fine-tuning", "answers"),
        0.0,
        "points",
        presets=("full",),
    ),
)

SPEED = question(
    "Does decoupled deployment raise throughput?",
    Claim(
        "deployment-speed-up",
        "paper",
        "Requests per second of two processes with one thread each, over one process with two threads.",
        DEPLOYMENT,
        ("deployment",),
        number("deployment", "speed_up"),
        1.1,
        "number",
        presets=("full",),
    ),
)

CLAIMS = on_splits(
    (*EXACT, *MIXING, *ORDER, *LONGER, *ROUTING, *PREFERENCES, *SPEED),
    others={"deployment-speed-up": ""},
)
