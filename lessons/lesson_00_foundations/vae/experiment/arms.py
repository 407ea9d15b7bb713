"""The arms of the part `vae`."""

from shared.course.lesson import Arm

PACKAGE = "lessons.lesson_00_foundations.vae.experiment"
PART = "vae"
WIDTH, NARROW = 8, 2
"""Dimensions of the codes that are compared."""

VAE, VAE_NARROW, VAE_LINEAR, VAE_WITHOUT_KL = "vae", "vae, width 2", "vae, linear", "vae, no KL"
PCA, PCA_NARROW, BASELINES, EXACT = "pca", "pca, width 2", "baselines without a code", "vae, exact"

CLASSIFIER_STEPS = {"smoke": 30, "cpu": 400, "full": 400}
VAE_STEPS = {"smoke": 30, "cpu": 2000, "full": 2000}


def _arm(name: str, function: str, **settings) -> Arm:
    """Return an arm that trains the classifier, with the same settings for every CPU preset."""
    presets = {preset: {"classifier_steps": steps, **settings} for preset, steps in CLASSIFIER_STEPS.items()}
    return Arm(name, f"{PACKAGE}.{function}", presets, part=PART)


def _vae(name: str, **settings) -> Arm:
    presets = {
        preset: {"steps": steps, "classifier_steps": CLASSIFIER_STEPS[preset], **settings}
        for preset, steps in VAE_STEPS.items()
    }
    return Arm(name, f"{PACKAGE}.train:train_vae", presets, part=PART)


ARMS = (
    _vae(VAE, width=WIDTH),
    _vae(VAE_NARROW, width=NARROW),
    _vae(VAE_LINEAR, width=WIDTH, mlp_dim=[], learning_rate=1e-2),
    _vae(VAE_WITHOUT_KL, width=WIDTH, kl_weight=0.0),
    _arm(PCA, "train:fit_pca", width=WIDTH),
    _arm(PCA_NARROW, "train:fit_pca", width=NARROW),
    _arm(BASELINES, "evaluate:evaluate_baselines"),
    Arm(EXACT, f"{PACKAGE}.exact:check_mechanism", {"smoke": {}, "cpu": {}, "full": {}}, part=PART),
)
