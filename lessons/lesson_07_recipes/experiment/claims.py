"""The claims of lesson 7: identities, effects of the lab, predicted recipe; each reads measurements of arms.py."""

from typing import Any

from lessons.lesson_07_recipes.experiment.arms import PREDICTED
from lessons.lesson_07_recipes.experiment.levels import ENCODER_ARMS
from lessons.lesson_07_recipes.experiment.scores import FACTORS, largest_interaction, main_effect, mean_score
from lessons.lesson_07_recipes.experiment.text.claims import EXPERTS, JUDGED, LATENTS, LONG
from shared.course.claims import number
from shared.course.lesson import Arms, Claim, question
from shared.course.splits import on_splits

RUNS = tuple(ENCODER_ARMS.values())


def main_effects_dominate(arms: Arms) -> float:
    """Return the size of the largest main effect minus that of the largest two-way interaction."""
    return max(abs(main_effect(factor)(arms)) for factor in FACTORS) - largest_interaction(arms)


def prediction_error(arms: Arms) -> float:
    """Return how far the trained recipe's accuracy on the validation scenes is from the predicted one."""
    return abs(arms[PREDICTED]["seen"] - arms[PREDICTED]["predicted"])


def exact(name: str, sentence: str, measurement: str, source: str, tolerance: float = 1e-9) -> Claim:
    """Return the claim that a difference measured by the arm "exact" is at most a tolerance."""
    return Claim(
        *(name, "exact", sentence, source, ("exact",), number("exact", measurement), tolerance, "error"), at_least=False
    )


EXACT = (
    exact(
        "absorbed-equals-plain",
        "Logits of a DeepSeek-V3 with absorbed and with plain latent attention (largest difference, float64).",
        "absorbed_difference",
        "arXiv:2405.04434, section 2.1.2",
    ),
    exact(
        "reference-agrees",
        "Latent attention in pure Python and in PyTorch (largest difference; rotary angles are float32).",
        "reference_difference",
        "reference.py",
        1e-5,
    ),
    exact(
        "balance-loss-agrees",
        "The load-balancing loss in pure Python and in PyTorch (difference, float64).",
        "balance_difference",
        "arXiv:2101.03961, equation 4",
    ),
    exact(
        "upcycling-changes-nothing",
        "Logits of lesson 0's decoder and of the sparse decoder with copies of its MLPs (largest difference, float64).",
        "upcycled_difference",
        "arXiv:2212.05055, section 3",
    ),
    exact(
        "cache-bytes-agree",
        "Bytes of the cache per token, computed from the config and measured on its tensors (largest difference).",
        "cache_difference",
        "arXiv:2405.04434, table 1",
        0.0,
    ),
    exact(
        "contrasts-are-least-squares",
        "Effects from contrasts and twice the coefficients of a least-squares fit (largest difference, float64).",
        "contrast_difference",
        "Box, Hunter and Hunter, Statistics for Experimenters, chapter 5",
    ),
)


def effect_claim(
    factor: str, comparison: str, source: str, paper_value: str, *, threshold: float | None = None, **values: Any
) -> Claim:
    """Return a claim about the main effect of one axis; without a threshold it is measured and not judged.

    values  further fields of the claim
    """
    sentence = f"Main effect on the accuracy on questions about unseen combinations, {comparison}."
    name = f"effect-{factor.replace(' ', '-')}"
    fields = (name, "paper", sentence, source, RUNS, main_effect(factor), threshold or 0.0, "points")
    return Claim(*fields, presets=() if threshold is None else JUDGED, paper_value=paper_value, **values)


EFFECTS = question(
    "Which axis moves the score most?",
    effect_claim(
        *("data", "captions and questions − captions alone", "arXiv:2403.09611, section 3.3", "data mix matters"),
        threshold=0.05,
    ),
    effect_claim(
        *("language model", "four experts, two per token − dense", "arXiv:2405.05949, section 3", ""),
        threshold=0.0,
        expected="not reproduced",
        hypothesis="a step with experts costs more, so an equal budget pays for fewer steps (in seed 0: 53 to 185, and "
        "90 to 314 for dense LMs). Test: runs with equally many steps.",
    ),
    effect_claim(
        *("encoder", "contrastive and captioning loss − contrastive loss alone", "arXiv:2502.14786, section 2.2"),
        "",
        threshold=0.0,
        expected="not reproduced",
        hypothesis="with eight runs, this effect is confounded with the interaction of language model and image "
        "tokens: both runs with experts and 64 tokens use this encoder. Test: the 16 runs of the preset `full`.",
    ),
    effect_claim(
        *("resolution", "64 image tokens − 16", "arXiv:2403.09611, section 3.2"),
        "MM1: more tokens help; Idefics2: not beyond 64",
        threshold=0.0,
        expected="not reproduced",
        hypothesis="64 tokens come from the same pixels and cost more per step, so an equal budget pays for fewer "
        "steps. Test: larger images, and runs with equally many steps.",
    ),
    effect_claim("connector", "Q-Former − MLP", "arXiv:2403.09611, section 3.2", "MM1: little effect"),
    Claim(
        "main-effects-dominate",
        "learns",
        "Largest main effect − largest two-way interaction, accuracy on questions about unseen combinations.",
        "",
        RUNS,
        main_effects_dominate,
        0.0,
        "points",
        presets=("full",),
    ),
)

PREDICTION = question(
    "Do the effects predict a good recipe?",
    Claim(
        "predicted-recipe",
        "learns",
        "Accuracy of the predicted recipe, trained with a new seed, on questions about unseen combinations.",
        "",
        (*RUNS, PREDICTED),
        number(PREDICTED, "unseen"),
        0.5,
        baseline=mean_score,
        baseline_name="mean of all runs",
        presets=JUDGED,
    ),
    Claim(
        "prediction-error",
        "learns",
        "Distance between predicted and measured accuracy of the predicted recipe, on new scenes of seen combinations.",
        "",
        (PREDICTED,),
        prediction_error,
        0.15,
        "points",
        at_least=False,
        presets=JUDGED,
    ),
    Claim(
        "best-run-loses",
        "learns",
        "Accuracy on new scenes of seen combinations, predicted recipe − best run of the design.",
        "",
        (PREDICTED,),
        lambda arms: arms[PREDICTED]["seen"] - arms[PREDICTED]["best_run"],
        0.0,
        "points",
        presets=(),
    ),
)

CLAIMS = (
    *EXACT,
    *on_splits((*EFFECTS, *PREDICTION), others={"prediction-error": "validation", "best-run-loses": "validation"}),
    *on_splits((*EXPERTS, *LATENTS, *LONG), measured_on="text", others={"latent-cache": ""}),
)
