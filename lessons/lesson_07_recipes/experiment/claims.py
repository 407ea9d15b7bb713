"""The claims of lesson 7: identities, effects of the lab, predicted recipe; each reads measurements of arms.py."""

from dataclasses import replace

from lessons.lesson_07_recipes.experiment.arms import PREDICTED
from lessons.lesson_07_recipes.experiment.language_model_claims import EXPERTS, LATENTS, LONG
from lessons.lesson_07_recipes.experiment.levels import ENCODER_ARMS
from lessons.lesson_07_recipes.experiment.scores import FACTORS, largest_interaction, main_effect, mean_score
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


def effect_claim(factor: str, comparison: str, source: str, paper_value: str) -> Claim:
    """Return a claim that measures the main effect of one axis and is not judged."""
    sentence = f"Main effect on the accuracy on questions about unseen combinations, {comparison}."
    values = (f"effect-{factor.replace(' ', '-')}", "paper", sentence, source, RUNS, main_effect(factor), 0.0, "points")
    return Claim(*values, presets=(), paper_value=paper_value)


EFFECTS = question(
    "Which axis moves the score most?",
    replace(
        effect_claim(
            "data", "captions and questions − captions alone", "arXiv:2403.09611, section 3.3", "data mix matters"
        ),
        threshold=0.05,
        presets=("full",),
    ),
    effect_claim(
        "resolution",
        "64 image tokens − 16",
        "arXiv:2403.09611, section 3.2",
        "MM1: more tokens help; Idefics2: not beyond 64",
    ),
    effect_claim(
        "connector",
        "Q-Former − MLP",
        "arXiv:2403.09611, section 3.2",
        "MM1: little effect",
    ),
    effect_claim(
        "encoder",
        "contrastive and captioning loss − contrastive loss alone",
        "arXiv:2502.14786, section 2.2",
        "",
    ),
    effect_claim(
        "language model",
        "four experts, two per token − dense",
        "arXiv:2405.05949, section 3",
        "",
    ),
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
        presets=("full",),
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
        presets=("full",),
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
