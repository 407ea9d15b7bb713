"""The claims about the language-model axis on text: experts, the cache of latent attention, and longer contexts."""

from shared.course.claims import Measure, difference, ratio
from shared.course.lesson import Arms, Claim, question

JUDGED = ("cpu", "full")
"""The presets for which thresholds were set beforehand, on validation scenes and other seeds."""


def length_difference(first: tuple[str, int], second: tuple[str, int]) -> Measure:
    """Return a measure of the cross-entropy of `first` minus that of `second`.

    Each is the name of a rotary scaling and the multiple of the trained length, from 1.
    """

    def measure(arms: Arms) -> float:
        one, other = (arms["dense"][f"length_{name}"][multiple - 1] for name, multiple in (first, second))
        return one - other

    return measure


EXPERTS = question(
    "Do experts add capacity at equal active parameters?",
    Claim(
        "sparse-beats-dense",
        "paper",
        "Cross-entropy of new text (nats per token) at equal active parameters, dense − eight experts with two chosen.",
        "arXiv:2401.04088, section 3",
        ("dense", "sparse"),
        difference("dense", "sparse", "loss"),
        0.0,
        "number",
        presets=JUDGED,
        expected="inconclusive",
        paper_value="Mixtral (13 B active) matches or beats Llama 2 70B",
    ),
    Claim(
        "sparse-against-large",
        "paper",
        "Cross-entropy of new text (nats per token) at equal total parameters, eight experts with two chosen − dense.",
        "arXiv:2101.03961, section 3",
        ("sparse", "large"),
        difference("sparse", "large", "loss"),
        0.0,
        "number",
        presets=(),
    ),
    Claim(
        "balance-loss-balances",
        "paper",
        "Load of the most chosen expert above the mean (as a fraction of the mean), without − with the balance loss.",
        "arXiv:2101.03961, section 2.2",
        ("sparse without balance loss", "sparse"),
        difference("sparse without balance loss", "sparse", "max_violation"),
        0.05,
        "number",
        presets=("full",),
    ),
)

LATENTS = question(
    "Is the cache of latent attention smaller at a similar loss?",
    Claim(
        "latent-cache",
        "paper",
        "Bytes of the cache per token, latent attention / multi-head attention.",
        "arXiv:2405.04434, abstract",
        ("dense", "latent"),
        ratio("latent", "dense", "measured_cache_bytes"),
        0.25,
        at_least=False,
        presets=JUDGED,
        paper_value="6.7 % (DeepSeek-V2 / DeepSeek 67B)",
    ),
    Claim(
        "latent-loss",
        "paper",
        "Cross-entropy of new text (nats per token) at equal parameters, latent − multi-head attention.",
        "arXiv:2405.04434, appendix D",
        ("dense", "latent"),
        difference("latent", "dense", "loss"),
        0.1,
        "number",
        at_least=False,
        presets=JUDGED,
    ),
    Claim(
        "grouped-loss",
        "paper",
        "Cross-entropy of new text (nats per token) at equal parameters, grouped queries − multi-head attention.",
        "arXiv:2405.04434, appendix D",
        ("dense", "grouped"),
        difference("grouped", "dense", "loss"),
        0.1,
        "number",
        at_least=False,
        presets=(),
    ),
)

LONG = question(
    "Does rotary scaling extend the context?",
    Claim(
        "plain-rotary-fails",
        "paper",
        "Cross-entropy (nats per token) at four times the trained length − at the trained length, unscaled rotary.",
        "arXiv:2306.15595, section 1",
        ("dense",),
        length_difference(("none", 4), ("none", 1)),
        0.3,
        "number",
        presets=JUDGED,
        expected="inconclusive",
    ),
    Claim(
        "yarn-helps",
        "paper",
        "Cross-entropy (nats per token) at four times the trained length without further training, unscaled − YaRN.",
        "arXiv:2309.00071, section 4",
        ("dense",),
        length_difference(("none", 4), ("YaRN", 4)),
        0.1,
        "number",
        presets=JUDGED,
        expected="inconclusive",
    ),
    Claim(
        "yarn-tuned-holds",
        "paper",
        "Cross-entropy (nats per token) after tuning with YaRN, at four times the trained length − at one.",
        "arXiv:2309.00071, section 4",
        ("dense",),
        length_difference(("YaRN, tuned", 4), ("YaRN, tuned", 1)),
        0.1,
        "number",
        at_least=False,
        presets=JUDGED,
    ),
    Claim(
        "yarn-against-tuning-alone",
        "paper",
        "Cross-entropy (nats per token) at four times the trained length after equal tuning, unscaled − YaRN.",
        "arXiv:2309.00071, section 4",
        ("dense",),
        length_difference(("none, tuned", 4), ("YaRN, tuned", 4)),
        0.0,
        "number",
        presets=(),
    ),
)
