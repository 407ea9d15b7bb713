"""The claims of lesson 11; each reads measurements of arms.py. Claims without a calibrated threshold are measured."""

from lessons.lesson_11_chameleon.experiment.codebooks import SIZES
from shared.course.claims import Measure, difference, number
from shared.course.lesson import Arms, Claim, question
from shared.course.splits import on_splits

CHAMELEON, VQVAE, VQGAN, FSQ = "arXiv:2405.09818", "arXiv:1711.00937", "arXiv:2012.09841", "arXiv:2309.15505"
SHIPPED = ("shipped",)
HIGHEST_RATE = 3e-2
"""The highest learning rate that every preset of the sweep has."""


def gap(one: str, other: str) -> Measure:
    """Return a measure of the difference between two measurements of the shipped model."""
    return lambda arms: arms["shipped"][one] - arms["shipped"][other]


def logit_ratio(arms: Arms) -> float:
    """Return the largest attention logit without QK-norm over that with QK-norm."""
    return arms["stability"][f"plain_{HIGHEST_RATE:g}_logit"] / arms["stability"][f"QK-norm_{HIGHEST_RATE:g}_logit"]


def diverged_difference(arms: Arms) -> float:
    """Return the fraction of diverged runs without QK-norm minus that with QK-norm."""
    return arms["stability"]["plain_diverged"] - arms["stability"]["QK-norm_diverged"]


EXACT = tuple(
    Claim(name, "exact", sentence, source, ("exact",), number("exact", measured), limit, "error", at_least=False)
    for name, sentence, source, measured, limit in (
        (
            "codes-survive",
            "Codes that change on the way to token ids and back.",
            f"{CHAMELEON}, section 2.1",
            "code_mismatches",
            0.0,
        ),
        (
            "complete-images",
            "Images of constrained decoding without exactly 64 codes between begin and end, untrained decoder.",
            CHAMELEON,
            "incomplete_images",
            0.0,
        ),
        (
            "bounded-logits",
            "Layers whose largest attention logit exceeds the bound that QK-norm's gains and biases give.",
            f"{CHAMELEON}, section 2.3",
            "logits_above_bound",
            0.0,
        ),
        (
            "straight-through-gradient",
            "Gradients before and after the quantizer are equal (largest difference).",
            VQVAE,
            "gradient_difference",
            0.0,
        ),
        (
            "shifted-logits",
            "Cross-entropy does not change when all logits grow by a constant (difference).",
            f"{CHAMELEON}, section 2.3",
            "shift_difference",
            1e-12,
        ),
        (
            "reference-equals-model",
            "Nearest codes that differ between the pure-Python and the PyTorch version.",
            "reference.py",
            "reference_mismatches",
            0.0,
        ),
    )
)

ANSWERS = question(
    "Does one decoder answer questions about images?",
    Claim(
        "answers",
        "learns",
        "Accuracy on questions about one object of an unseen combination, mean over six question types.",
        CHAMELEON,
        SHIPPED,
        number("shipped", "answers"),
        0.75,
        baseline=number("shipped", "chance"),
        baseline_name="uniform guess",
    ),
    Claim(
        "captions",
        "learns",
        "Captions of unseen combinations that equal the full caption: size, texture, color, shape and place.",
        CHAMELEON,
        SHIPPED,
        number("shipped", "captions"),
        0.5,
        presets=(),
    ),
)

DRAWINGS = question(
    "Does the same decoder draw what a caption describes?",
    *(
        Claim(
            f"draws-{attribute}",
            "learns",
            f"Drawings of unseen combinations with the requested {attribute}, by the judge.",
            CHAMELEON,
            SHIPPED,
            number("shipped", f"draw_{attribute}"),
            threshold,
            expected=expected,
        )
        for attribute, threshold, expected in (
            ("color", 0.9, "inconclusive"),
            ("shape", 0.8, "reproduced"),
            ("place", 0.8, "reproduced"),
        )
    ),
    Claim(
        "draws-object",
        "learns",
        "Objects of unseen combinations with place and all attributes right, drawings − reconstructions of real "
        "renders (the ceiling).",
        CHAMELEON,
        SHIPPED,
        gap("draw_object", "ceiling_object"),
        -0.2,
        "points",
        presets=(),
    ),
    Claim(
        "drawing-distance",
        "learns",
        "Fréchet distance of the judge's features, drawings − reconstructions of real renders.",
        CHAMELEON,
        SHIPPED,
        gap("distance", "ceiling_distance"),
        1.0,
        "number",
        at_least=False,
        presets=(),
    ),
)

STABILITY = question(
    "Does QK-norm keep training stable?",
    Claim(
        "smaller-logits",
        "paper",
        f"Largest attention logit at learning rate {HIGHEST_RATE:g}, without QK-norm over with QK-norm.",
        f"{CHAMELEON}, section 2.3",
        ("stability",),
        logit_ratio,
        2.0,
        "number",
    ),
    Claim(
        "fewer-divergences",
        "paper",
        "Runs that diverge over the learning rates of the sweep, without QK-norm − with QK-norm.",
        f"{CHAMELEON}, section 2.3",
        ("stability",),
        diverged_difference,
        0.0,
        "points",
        presets=(),
    ),
)

TOKENIZERS = question(
    "What decides how well codes reconstruct an image?",
    Claim(
        "larger-codebook",
        "paper",
        f"PSNR of reconstructions, {SIZES[-1]:,} codes − {SIZES[0]} codes (dB).",
        VQGAN,
        (f"{SIZES[-1]} codes", f"{SIZES[0]} codes"),
        difference(f"{SIZES[-1]} codes", f"{SIZES[0]} codes", "psnr"),
        1.0,
        "number",
        presets=("full",),
    ),
    Claim(
        "restart-use",
        "paper",
        "Fraction of 1,024 codes in use, with dead-code restart − without.",
        "arXiv:2005.00341, section 3",
        ("1024 codes", "no restart"),
        difference("1024 codes", "no restart", "use"),
        0.0,
        "points",
        presets=("full",),
    ),
    Claim(
        "fsq-use",
        "paper",
        "Fraction of 4,096 codes in use, FSQ − EMA codebook with restart.",
        FSQ,
        ("FSQ, 4096 codes", "4096 codes"),
        difference("FSQ, 4096 codes", "4096 codes", "use"),
        0.0,
        "points",
        presets=(),
    ),
    Claim(
        "fsq-psnr",
        "paper",
        "PSNR of reconstructions with 4,096 codes, FSQ − EMA codebook (dB).",
        FSQ,
        ("FSQ, 4096 codes", "4096 codes"),
        difference("FSQ, 4096 codes", "4096 codes", "psnr"),
        0.0,
        "number",
        presets=(),
    ),
    Claim(
        "grid-size",
        "paper",
        "PSNR of reconstructions with 1,024 codes, 8 × 8 − 4 × 4 codes per image (dB).",
        VQGAN,
        ("1024 codes", "4 × 4"),
        difference("1024 codes", "4 × 4", "psnr"),
        1.0,
        "number",
        presets=("full",),
    ),
    Claim(
        "perceptual-shape",
        "paper",
        "Shapes that the judge recognizes in reconstructions with 1,024 codes, with perceptual loss − without.",
        VQGAN,
        ("perceptual", "1024 codes"),
        difference("perceptual", "1024 codes", "shape"),
        0.0,
        "points",
        presets=(),
    ),
)

JOINT = question(
    "What does joint training cost each task?",
    *(
        Claim(
            f"joint-{task}",
            "learns",
            f"Cross-entropy per token of {content}, {arm} − joint training, equal parameters (nats).",
            CHAMELEON,
            (arm, "joint"),
            difference(arm, "joint", f"{task}_loss"),
            0.0,
            "number",
            presets=(),
        )
        for task, content, arm in (
            ("draw", "images given captions", "drawing alone"),
            ("caption", "captions given images", "reading alone"),
            ("answer", "answers given images", "reading alone"),
        )
    ),
)

CLAIMS = on_splits(
    (*EXACT, *ANSWERS, *DRAWINGS, *STABILITY, *TOKENIZERS, *JOINT),
    others={
        "smaller-logits": "train",
        "fewer-divergences": "train",
    },
)
