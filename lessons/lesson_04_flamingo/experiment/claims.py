"""The claims of lesson 4, measured in episodes whose rules were held out of all training, of text and of images."""

from collections.abc import Callable
from statistics import fmean

from lessons.lesson_04_flamingo.experiment.evaluate import SHOTS
from shared.course.claims import difference, number
from shared.course.lesson import Arms, Claim, question
from shared.course.splits import on_splits

Measure = Callable[[Arms], float]


def gain(fewer: int, more: int) -> Measure:
    """Return a measure of the gain in accuracy on held-out rules from `fewer` to `more` examples."""

    def read(arms: Arms) -> float:
        return arms["flamingo"][f"held_out_{more}"] - arms["flamingo"][f"held_out_{fewer}"]

    return read


def mean_difference(other: str) -> Measure:
    """Return a measure of Flamingo's accuracy on held-out rules minus another arm's, mean over all shots."""

    def read(arms: Arms) -> float:
        return fmean(arms["flamingo"][f"held_out_{shots}"] - arms[other][f"held_out_{shots}"] for shots in SHOTS)

    return read


def forgetting(arm: str) -> Measure:
    """Return a measure of the increase in cross-entropy of plain text by the training, in bits per token."""

    def read(arms: Arms) -> float:
        return arms[arm]["text_bits_after"] - arms[arm]["text_bits_before"]

    return read


def forgetting_difference(arm: str, baseline: str) -> Measure:
    """Return a measure of how much more of its text one arm forgets than another, in bits per token."""
    return lambda arms: forgetting(arm)(arms) - forgetting(baseline)(arms)


def accuracy_after(shots: int) -> Claim:
    """Return a row of the table that is measured and not judged: the gain is judged."""
    return Claim(
        f"held-out-{shots}",
        "learns",
        f"Accuracy of Flamingo on held-out rules after {shots or 'no'} example{'s' * (shots != 1)}.",
        "arXiv:2204.14198, figure 2",
        ("flamingo",),
        number("flamingo", f"held_out_{shots}"),
        0.0,
        baseline=number("flamingo", f"best_guess_{shots}"),
        baseline_name="best possible guess",
        presets=(),
    )


EXACT = (
    Claim(
        "gates-at-zero",
        "exact",
        "With all gates at zero the logits equal the language model's to the last bit (mismatched entries).",
        "arXiv:2204.14198, section 2.2",
        ("exact",),
        number("exact", "changed_at_gate_zero"),
        0.0,
        "error",
        at_least=False,
    ),
    Claim(
        "reference-equals-model",
        "exact",
        "Logits of the pure-Python and the PyTorch Flamingo (largest difference).",
        "reference.py",
        ("exact",),
        number("exact", "logit_difference"),
        1e-6,
        "error",
        at_least=False,
    ),
    Claim(
        "latest-image",
        "exact",
        "The cross-attention mask equals one in pure Python: each token attends to its latest image (mismatched "
        "entries).",
        "arXiv:2204.14198, section 2.3",
        ("exact",),
        number("exact", "mask_difference"),
        0.0,
        "error",
        at_least=False,
    ),
    Claim(
        "latent-count",
        "exact",
        "Number of different counts of visual tokens for images of 4, 16, 64 and 256 patches (1: always equal).",
        "arXiv:2204.14198, section 2.1",
        ("exact",),
        number("exact", "latent_counts"),
        1.0,
        "number",
        at_least=False,
    ),
    Claim(
        "frozen-weights-unchanged",
        "exact",
        "Training leaves vision encoder and language model unchanged (1 if a hash differs).",
        "arXiv:2204.14198, section 2.2",
        ("flamingo",),
        number("flamingo", "frozen_changed"),
        0.0,
        "error",
        at_least=False,
    ),
)

LEARNS = (
    *question(
        "Does Flamingo learn from examples in the prompt?",
        Claim(
            "eight-shots",
            "learns",
            "Accuracy of Flamingo on held-out rules and new images after eight examples.",
            "arXiv:2204.14198, section 3.1",
            ("flamingo",),
            number("flamingo", "held_out_8"),
            0.7,
            baseline=number("flamingo", "held_out_0"),
            baseline_name="no examples",
        ),
        Claim(
            "images-matter",
            "learns",
            "Accuracy of Flamingo on held-out rules after eight examples, with the images of another prompt.",
            "",
            ("flamingo",),
            number("flamingo", "blind_8"),
            0.4,
            at_least=False,
        ),
        Claim(
            "examples-matter",
            "learns",
            "Accuracy of Flamingo on held-out rules after eight examples that follow other rules.",
            "",
            ("flamingo",),
            number("flamingo", "mixed_8"),
            0.6,
            at_least=False,
        ),
    ),
)

PAPER = (
    *question("How accurate is it after each number of examples?", *map(accuracy_after, (0, 1, 2, 4))),
    *question(
        "Does each further example help?",
        Claim(
            "one-shot-gain",
            "learns",
            "Gain in accuracy of Flamingo on held-out rules, one example − no example.",
            "arXiv:2204.14198, figure 2",
            ("flamingo",),
            gain(0, 1),
            0.05,
            "points",
        ),
        Claim(
            "four-shot-gain",
            "paper",
            "Gain in accuracy of Flamingo on held-out rules, four examples − one example.",
            "arXiv:2204.14198, figure 2",
            ("flamingo",),
            gain(1, 4),
            0.08,
            "points",
            paper_value="+6.8 points from 0 to 4 examples (VQAv2, Flamingo-80B)",
        ),
        Claim(
            "eight-shot-gain",
            "paper",
            "Gain in accuracy of Flamingo on held-out rules, eight examples (twice as many as in training) − four.",
            "arXiv:2204.14198, section 2.3",
            ("flamingo",),
            gain(4, 8),
            0.01,
            "points",
            paper_value="+4.5 points from 4 to 32 examples (VQAv2, Flamingo-80B)",
        ),
    ),
    *question(
        "Do the gates help?",
        Claim(
            "gates-preserve-text-at-start",
            "learns",
            "Cross-entropy of plain text before training, Flamingo without gates − with gates (bits per token).",
            "arXiv:2204.14198, section 2.2",
            ("flamingo", "without gates"),
            difference("without gates", "flamingo", "text_bits_start"),
            0.4,
            "number",
        ),
        Claim(
            "gates-help",
            "paper",
            "Accuracy of Flamingo on held-out rules at equal steps, with gates − without (mean over 0 to 8 examples).",
            "arXiv:2204.14198, table 3 (iii)",
            ("flamingo", "without gates"),
            mean_difference("without gates"),
            0.04,
            "points",
            paper_value="+4.2 points of a normalized score (Flamingo-3B)",
            expected="inconclusive",
        ),
    ),
    *question(
        "Should the language model stay frozen?",
        Claim(
            "text-cost",
            "learns",
            "Increase in cross-entropy of plain text by the training of Flamingo (bits per token).",
            "arXiv:2204.14198, section 2.2",
            ("flamingo",),
            forgetting("flamingo"),
            0.1,
            "number",
            at_least=False,
        ),
        Claim(
            "frozen-forgets-less",
            "learns",
            "Increase in cross-entropy of plain text, trained language model − frozen one (bits per token).",
            "arXiv:2204.14198, section 3.3",
            ("flamingo", "trained language model"),
            forgetting_difference("trained language model", "flamingo"),
            0.03,
            "number",
        ),
        Claim(
            "frozen-is-better",
            "paper",
            "Accuracy on held-out rules, frozen language model − trained one (mean over 0 to 8 examples).",
            "arXiv:2204.14198, table 3 (viii)",
            ("flamingo", "trained language model"),
            mean_difference("trained language model"),
            0.01,
            "points",
            paper_value="+8.0 points of a normalized score (Flamingo-3B)",
        ),
    ),
)

CLAIMS = on_splits(
    (*EXACT, *LEARNS, *PAPER),
    others=dict.fromkeys(("gates-preserve-text-at-start", "text-cost", "frozen-forgets-less"), "text"),
)
