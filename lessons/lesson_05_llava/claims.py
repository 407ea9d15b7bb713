"""What the lesson trains and claims: the arms and claims of its experiment.

Thresholds of what is learned are set by the first measurements over several seeds; until then `presets` is empty, and the
claim is measured and not judged.
"""

from lessons.lesson_05_llava.arms.training import TUNINGS
from shared.course.lesson import Arm, Arms, Claim
from shared.course.measures import difference, number, ratio

ROOM = "lessons.lesson_05_llava.arms"
TRAIN, LENGTHS = f"{ROOM}.training:train_llava", f"{ROOM}.training:train_lengths"
PRESETS = ("smoke", "cpu", "full")
TINY = {"scenes": 24, "batch_size": 4, "held_out": 24}
SIZES = {
    "smoke": TINY | {"first_steps": 2, "second_steps": 2},
    # Scenes of one thing, and the six kinds of questions that one is enough for.
    "cpu": {"first_steps": 300, "second_steps": 1300, "scenes": 10_000, "things": [1, 1]},
    "full": {"first_steps": 1000, "second_steps": 6000, "scenes": 20_000},
}
SHORTEST, LONGEST = 50, 800
SWEEP = {
    "smoke": TINY | {"first_steps": 2, "lengths": [1, 2]},
    "full": {"first_steps": 400, "lengths": [SHORTEST, 100, 200, 400, LONGEST], "scenes": 6000, "things": [1, 1]},
}


def settings(*presets: str, **further: object) -> dict[str, dict]:
    """For some presets their sizes, and what sets an arm apart."""
    return {preset: SIZES[preset] | further for preset in presets}


ARMS = (
    Arm("llava", TRAIN, settings(*PRESETS)),
    Arm("blind", TRAIN, settings(*PRESETS, image=False, first_steps=0)),
    Arm("stage 2 alone", TRAIN, settings(*PRESETS, first_steps=0)),
    Arm("prompts too", TRAIN, settings("smoke", "full", prompts=True)),
    *(Arm(tuning, TRAIN, settings("smoke", "full", tuning=tuning)) for tuning in TUNINGS if tuning != "full"),
    Arm("lengths", LENGTHS, SWEEP),
    Arm("lengths, stage 2 alone", LENGTHS, {preset: chosen | {"first_steps": 0} for preset, chosen in SWEEP.items()}),
    Arm("exact", f"{ROOM}.exact:check_mechanism", {preset: {} for preset in PRESETS}),
)


def lead(steps: int):
    """Reads by how much the first stage helps a second one of so many steps (answers)."""
    return difference("lengths", "lengths, stage 2 alone", f"answers_{steps}")


def closing(arms: Arms) -> float:
    """By how much that lead is smaller after the longest second stage than after the shortest."""
    return lead(SHORTEST)(arms) - lead(LONGEST)(arms)


CLAIMS = (
    Claim(
        "logits-agree", "exact", "The pure-Python LLaVA and the PyTorch one give the same logits (largest difference; angles are float32).",
        "reference.py", ("exact",), number("exact", "logit_difference"), 1e-5, "error", at_least=False,
    ),
    Claim(
        "losses-agree", "exact", "… and the same loss on the answers.",
        "reference.py", ("exact",), number("exact", "loss_difference"), 1e-5, "error", at_least=False,
    ),
    Claim(
        "prompts-are-read", "exact", "No logit that speaks of a question, a header or an image has a gradient (the largest).",
        "arXiv:2304.08485, table 2", ("exact",), number("exact", "prompt_gradient"), 0.0, "error", at_least=False,
    ),
    Claim(
        "eye-stays", "exact", "The eye has not moved by one bit (1 if its hash has changed).",
        "arXiv:2304.08485, section 4.2", ("llava",), number("llava", "frozen_changed"), 0.0, "error", at_least=False,
    ),
    Claim(
        "answers", "learns", "It answers questions about held-out combinations, of all kinds alike, better than one that cannot see.",
        "arXiv:2304.08485, section 5.1", ("llava", "blind"), number("llava", "answers"), 0.9,
        baseline=number("blind", "answers"), baseline_name="blind", presets=(),
    ),
    Claim(
        "answers-seen", "learns", "The same about new scenes of combinations that it has met.",
        "arXiv:2304.08485, section 5.1", ("llava", "blind"), number("llava", "seen"), 0.9,
        baseline=number("blind", "seen"), baseline_name="blind", presets=(),
    ),
    Claim(
        "bleu", "learns", "Its descriptions of held-out scenes share their words in order with what is true (BLEU-4).",
        "shared/evaluation", ("llava", "blind"), number("llava", "bleu_4"), 0.5, "number",
        baseline=number("blind", "bleu_4"), baseline_name="blind", presets=(),
    ),
    Claim(
        "cider", "learns", "… by the words that tell one scene from another (CIDEr).",
        "shared/evaluation", ("llava", "blind"), number("llava", "cider"), 3.0, "number",
        baseline=number("blind", "cider"), baseline_name="blind", presets=(),
    ),
    Claim(
        "rouge", "learns", "… and by their longest common sequence (ROUGE-L).",
        "shared/evaluation", ("llava", "blind"), number("llava", "rouge_l"), 0.7, "number",
        baseline=number("blind", "rouge_l"), baseline_name="blind", presets=(),
    ),
    Claim(
        "first-stage-helps", "paper", "A first stage before the second beats the second alone (answers, difference).",
        "arXiv:2304.08485, section 5.2", ("llava", "stage 2 alone"), difference("llava", "stage 2 alone", "answers"), 0.02, "points",
        presets=(),
    ),
    Claim(
        "short-stages-need-it", "paper", f"It helps a second stage of {SHORTEST} steps (answers, difference).",
        "arXiv:2402.07865, section 4.1", ("lengths", "lengths, stage 2 alone"), lead(SHORTEST), 0.05, "points", presets=(),
    ),
    Claim(
        "the-gap-closes", "paper", f"… and one of {LONGEST} less (difference of leads).",
        "arXiv:2402.07865, section 4.1", ("lengths", "lengths, stage 2 alone"), closing, 0.03, "points", presets=(),
    ),
    Claim(
        "mask-matters", "paper", "A loss on the answers alone beats one on the questions too (answers, difference).",
        "arXiv:2304.08485, table 2", ("llava", "prompts too"), difference("llava", "prompts too", "answers"), 0.0, "points", presets=(),
    ),
    Claim(
        "lora", "paper", "LoRA comes within two points of full tuning (answers, difference).",
        "arXiv:2106.09685, table 2", ("lora", "llava"), difference("lora", "llava", "answers"), -0.02, "points", presets=(),
    ),
    Claim(
        "dora", "paper", "… and DoRA.",
        "arXiv:2402.09353, table 1", ("dora", "llava"), difference("dora", "llava", "answers"), -0.02, "points", presets=(),
    ),
    Claim(
        "qlora", "paper", "… and QLoRA through frozen 4-bit weights.",
        "arXiv:2305.14314, table 3", ("qlora", "llava"), difference("qlora", "llava", "answers"), -0.02, "points", presets=(),
    ),
    Claim(
        "qlora-bytes", "paper", "QLoRA holds fewer bytes of weights than LoRA (its share).",
        "arXiv:2305.14314, section 3", ("qlora", "lora"), ratio("qlora", "lora", "weight_bytes"), 0.5, "percent", at_least=False,
        presets=(),
    ),
)  # fmt: skip
