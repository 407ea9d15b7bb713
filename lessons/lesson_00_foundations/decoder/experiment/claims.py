"""What the part `decoder` trains and claims."""

from shared.course.claims import difference, number
from shared.course.lesson import Arm, Arms, Claim

ROOM = "lessons.lesson_00_foundations.decoder.experiment"
PART = "decoder"
PRESETS = ("smoke", "cpu", "full")

STEPS = {
    "smoke": {"steps": 4, "documents": 200, "batch_size": 4},
    "cpu": {"steps": 500, "documents": 24_000},
    "full": {"steps": 500, "documents": 24_000},
}
SPEED = {name: {"width": 256, "depth": 6, "new_tokens": 8 if name == "smoke" else 160} for name in PRESETS}

ARMS = (
    Arm("decoder", f"{ROOM}.arms:train_decoder", STEPS, part=PART),
    Arm(
        "decoder, mixed rules", f"{ROOM}.arms:train_decoder",
        {name: settings | {"mixed": True} for name, settings in STEPS.items()}, part=PART,
    ),
    Arm("decoder, exact", f"{ROOM}.exact:check_decoder", {name: {} for name in PRESETS}, part=PART),
    Arm("decoder, speed", f"{ROOM}.speed:measure_speed", SPEED, part=PART),
)  # fmt: skip


def rise(arm: str, name: str, fewer: int, more: int):
    """Reads by how much accuracy rises from `fewer` examples to `more`."""

    def read(arms: Arms) -> float:
        return arms[arm][f"{name}_{more}"] - arms[arm][f"{name}_{fewer}"]

    return read


CLAIMS = (
    Claim(
        "decoder-reference-equals-model", "exact",
        "The pure-Python decoder and the PyTorch one give the same logits from the same weights (largest difference, float64).",
        "decoder/reference.py", ("decoder, exact",), number("decoder, exact", "reference_difference"), 1e-9, "error", at_least=False,
    ),
    Claim(
        "decoder-reference-gradients", "exact", "… and the same gradients of every weight (largest difference, float64).",
        "decoder/reference.py", ("decoder, exact",), number("decoder, exact", "reference_gradient_difference"), 1e-9, "error",
        at_least=False,
    ),
    Claim(
        "decoder-cache-changes-nothing", "exact",
        "Greedy decoding with a key–value cache writes the tokens that reading everything again would (differing tokens of 200).",
        "arXiv:1911.02150, section 2.3", ("decoder, exact",), number("decoder, exact", "cache_differing_tokens"), 0, "number",
        at_least=False,
    ),
    Claim(
        "decoder-batch-changes-nothing", "exact",
        "A batch of prompts of unequal lengths is continued as each would be alone (differing tokens of 200).",
        "shared/transformer/generation.py", ("decoder, exact",), number("decoder, exact", "batch_differing_tokens"), 0, "number",
        at_least=False,
    ),
    Claim(
        "decoder-beats-n-grams", "learns",
        "On new text of the toy world its perplexity is below that of interpolated Kneser–Ney on the same tokens (bits a byte).",
        "Chen & Goodman, 1998", ("decoder",), number("decoder", "bits_per_byte"), 0.36, "number", at_least=False,
        baseline=number("decoder", "ngram_bits_per_byte"), baseline_name="Kneser–Ney",
    ),
    Claim(
        "decoder-follows-new-rules", "learns",
        "Shown four examples, it follows rules of naming that it never met in training (baseline: shown none).",
        "arXiv:2005.14165, section 1", ("decoder",), number("decoder", "held_out_naming_4"), 0.85,
        baseline=number("decoder", "held_out_naming_0"), baseline_name="no example",
    ),
    Claim(
        "decoder-one-example-helps", "learns",
        "… of which the first does nearly all: one is enough to tell such a rule (accuracy with one, less with none).",
        "arXiv:2005.14165, figure 1.2", ("decoder",), rise("decoder", "held_out_naming", 0, 1), 0.8, "points",
    ),
    Claim(
        "decoder-follows-new-orders", "learns",
        "Where each example tells only a part of the rule, it adds the parts up: it chooses by orders that it never met in training "
        "(accuracy after seven examples; baseline: after one).",
        "arXiv:2005.14165, section 1", ("decoder",), number("decoder", "held_out_choosing_7"), 0.78,
        baseline=number("decoder", "held_out_choosing_1"), baseline_name="one example",
    ),
    Claim(
        "decoder-examples-add-up", "learns",
        "… and gets better with the first example (accuracy with one, less with none).",
        "arXiv:2005.14165, figure 1.2", ("decoder",), rise("decoder", "held_out_choosing", 0, 1), 0.12, "points",
    ),
    Claim(
        "decoder-more-examples-add-up", "learns",
        "… and with the next: seven examples (less one).",
        "arXiv:2005.14165, figure 1.2", ("decoder",), rise("decoder", "held_out_choosing", 1, 7), 0.1, "points",
    ),
    Claim(
        "decoder-consistency-teaches-it", "paper",
        "Learning from examples is itself learned, and only from text where examples help: after as much reading of the same lines with "
        "the rules mixed there is none of it (accuracy after four examples, less that).",
        "arXiv:2205.05055, section 3", ("decoder", "decoder, mixed rules"),
        difference("decoder", "decoder, mixed rules", "held_out_naming_4"), 0.75, "points",
    ),
    Claim(
        "decoder-consistency-teaches-choosing", "paper",
        "… and the same holds for choosing (accuracy after seven examples, less that).",
        "arXiv:2205.05055, section 3", ("decoder", "decoder, mixed rules"),
        difference("decoder", "decoder, mixed rules", "held_out_choosing_7"), 0.3, "points",
    ),
    Claim(
        "decoder-int8-agrees", "paper",
        "With weights of 8 bits it finds the same token likeliest (share of the places of held-out text).",
        "arXiv:2208.07339, section 2.1", ("decoder",), number("decoder", "int8_same_choices"), 0.93,
    ),
    Claim(
        "decoder-int8-texts", "paper",
        "… and so writes the same greedy texts, up to where two words are nearly as likely and two texts part (share of the tokens).",
        "arXiv:2208.07339, section 2.1", ("decoder",), number("decoder", "int8_agreement"), 0.75,
    ),
    Claim(
        "decoder-int8-memory", "paper",
        "… which take a fraction of the memory (bytes of the weights, how many times less).",
        "arXiv:2208.07339, section 2.1", ("decoder, speed",), number("decoder, speed", "memory_saving"), 3.8, "number",
    ),
    Claim(
        "decoder-cache-is-faster", "paper",
        "The cache makes writing faster (tokens a second, how many times as many as without).",
        "arXiv:1911.02150, section 2.3", ("decoder, speed",), number("decoder, speed", "cache_speedup"), 2.0, "number",
    ),
    Claim(
        "decoder-int8-speed", "paper",
        "On a CPU 8 bits are not faster: they are made into full weights at each use (tokens a second against full weights, ratio).",
        "", ("decoder, speed",), number("decoder, speed", "int8_speedup"), 1.0, "number", at_least=False,
        presets=(),
    ),
)  # fmt: skip
