"""What the part `vae` trains and claims."""

from shared.course.claims import difference, number, ratio
from shared.course.lesson import Arm, Claim

ROOM = "lessons.lesson_00_foundations.vae.experiment.arms"
PART = "vae"
WIDTH, NARROW = 8, 2
DIGITS, FREE = "digits and their judge", "vae, codes for nothing"
JUDGE = {"smoke": {"judge_steps": 30}, "cpu": {"judge_steps": 400}, "full": {"judge_steps": 400}}


def _vae(**settings) -> dict[str, dict]:
    steps = {"smoke": 30, "cpu": 2000, "full": 2000}
    return {preset: {"steps": steps[preset], **judge, **settings} for preset, judge in JUDGE.items()}


def _pca(width: int) -> dict[str, dict]:
    return {preset: {**judge, "width": width} for preset, judge in JUDGE.items()}


ARMS = (
    Arm("vae", f"{ROOM}:train_vae", _vae(width=WIDTH), part=PART),
    Arm("vae, 2 wide", f"{ROOM}:train_vae", _vae(width=NARROW), part=PART),
    Arm("vae, one matrix each", f"{ROOM}:train_vae", _vae(width=WIDTH, hidden=[], learning_rate=1e-2), part=PART),
    Arm(FREE, f"{ROOM}:train_vae", _vae(width=WIDTH, kl_weight=0.0), part=PART),
    Arm("pca", f"{ROOM}:fit_pca", _pca(WIDTH), part=PART),
    Arm("pca, 2 wide", f"{ROOM}:fit_pca", _pca(NARROW), part=PART),
    Arm(DIGITS, f"{ROOM}:look_at_digits", JUDGE, part=PART),
    Arm("vae, exact", f"{ROOM}:check_mechanism", {"smoke": {}, "cpu": {}, "full": {}}, part=PART),
)


CLAIMS = (
    Claim(
        "vae-reference-equals-model", "exact",
        "The pure-Python autoencoder and the PyTorch one have the same bound and the same gradients of every weight "
        "(largest difference, float64).",
        "vae/reference.py, vae/model.py", ("vae, exact",),
        lambda arms: max(arms["vae, exact"][name] for name in ("reference_difference", "reference_gradient_difference")),
        1e-9, "error", at_least=False,
    ),
    Claim(
        "vae-kl-is-what-draws-say", "exact",
        "The KL in closed form is the mean of log q − log p over 100,000 draws (largest difference of 20 bells, in standard errors).",
        "arXiv:1312.6114, appendix B", ("vae, exact",), number("vae, exact", "kl_error"), 5.0, "number", at_least=False,
    ),
    Claim(
        "vae-tighter-bound", "paper",
        "Weighing 200 codes an image raises the held-out bound above the ELBO of the same model (difference, in nats).",
        "arXiv:1509.00519, theorem 1", ("vae",), lambda arms: arms["vae"]["log_likelihood"] - arms["vae"]["elbo"], 2.0, "number",
    ),
    Claim(
        "vae-held-out-digits", "learns",
        "Held-out digits are likelier under the VAE than with each pixel by itself (bound on log p, in nats an image).",
        "arXiv:1312.6114, section 5", ("vae", DIGITS), number("vae", "log_likelihood"), -100.0, "number",
        baseline=number(DIGITS, "independent_log_likelihood"), baseline_name="independent pixels",
    ),
    Claim(
        "vae-beats-linear", "paper",
        "Hidden layers are what does it: with one matrix each way the bound is lower (difference, in nats).",
        "arXiv:1312.6114, section 3", ("vae", "vae, one matrix each"), difference("vae", "vae, one matrix each", "log_likelihood"), 25.0,
        "number",
    ),
    Claim(
        "vae-reconstruction", "paper",
        f"From {WIDTH} numbers it restores held-out digits better than {WIDTH} principal components do (squared error a pixel).",
        "Hinton & Salakhutdinov, 2006", ("vae", "pca"), number("vae", "error"), 4.0, "number", at_least=False,
        baseline=number("pca", "error"), baseline_name="PCA",
    ),
    Claim(
        "vae-reconstruction-narrow", "paper", f"… and so it does from {NARROW} (squared error a pixel).",
        "Hinton & Salakhutdinov, 2006", ("vae, 2 wide", "pca, 2 wide"), number("vae, 2 wide", "error"), 11.0, "number",
        at_least=False, baseline=number("pca, 2 wide", "error"), baseline_name="PCA",
    ),
    Claim(
        "vae-samples-look-like-digits", "paper",
        "An independent classifier takes the VAE's samples for digits more than those of a Gaussian in a PCA of equal width "
        "(score, from 1 to 10: sure of each, even over all; difference).",
        "arXiv:1312.6114, figure 5; arXiv:1606.03498", ("vae", "pca"), difference("vae", "pca", "score"), 0.3, "number",
    ),
    Claim(
        "vae-samples-lie-nearer", "paper",
        "… and its features of them lie nearer to those of held-out digits (Fréchet distance, as a share of the PCA Gaussian's).",
        "arXiv:1706.08500, section 3", ("vae", "pca"), ratio("vae", "pca", "distance"), 0.9, "number", at_least=False,
    ),
    Claim(
        "vae-samples-with-grain", "paper",
        "… also when both models draw every pixel with its noise (difference in score).",
        "arXiv:1606.03498", ("vae", "pca"), difference("vae", "pca", "grain_score"), 0.3, "number",
    ),
    Claim(
        "vae-samples-narrow", "paper", f"… and with {NARROW} numbers a code the lead is larger (difference in score).",
        "arXiv:1312.6114, figure 5", ("vae, 2 wide", "pca, 2 wide"), difference("vae, 2 wide", "pca, 2 wide", "score"), 2.0, "number",
    ),
    Claim(
        "vae-samples-are-no-copies", "learns",
        "Samples are no copies: they lie no nearer to the nearest digit trained on than held-out digits do (median, ratio).",
        "arXiv:1511.01844", ("vae",), number("vae", "nearest"), 1.0, "number",
    ),
    Claim(
        "vae-kl-makes-samples", "paper",
        "The KL is what makes the prior a place to draw from: with it, samples lie nearer to digits than without "
        "(Fréchet distance, as a share).",
        "arXiv:1312.6114, section 2.3", ("vae", FREE), ratio("vae", FREE, "distance"), 0.7, "number", at_least=False,
    ),
    Claim(
        "vae-kl-generalizes", "paper",
        "Without the KL the digits trained on are restored better (squared error with it, as a share of that without) …",
        "arXiv:1312.6114, section 2.3", ("vae", FREE), ratio("vae", FREE, "training_error"), 1.05, "number",
    ),
    Claim(
        "vae-kl-held-out", "paper", "… and held-out digits worse.",
        "arXiv:1312.6114, section 2.3", ("vae", FREE), ratio("vae", FREE, "error"), 0.95, "number", at_least=False,
    ),
    Claim(
        "vae-halfway", "paper",
        "Halfway between the codes of two digits lies something more like a digit than halfway between their pixels "
        "(the judge's mean confidence, difference).",
        "arXiv:1312.6114, figure 4", ("vae",), lambda arms: arms["vae"]["between_codes"] - arms["vae"]["between_pixels"], 0.03,
        "points",
    ),
    Claim(
        "vae-likelihood-is-not-looks", "paper",
        f"Likelihood and looks are two things. With {NARROW} numbers a code, held-out digits are less likely than with each "
        "pixel by itself (bound on log p, difference in nats) …",
        "arXiv:1511.01844", ("vae, 2 wide", DIGITS),
        lambda arms: arms["vae, 2 wide"]["log_likelihood"] - arms[DIGITS]["independent_log_likelihood"], 0.0, "number",
        at_least=False,
    ),
    Claim(
        "vae-looks-are-not-likelihood", "paper", "… yet the judge likes its samples better (difference in score).",
        "arXiv:1511.01844", ("vae, 2 wide", DIGITS),
        lambda arms: arms["vae, 2 wide"]["grain_score"] - arms[DIGITS]["independent_score"], 2.0, "number",
    ),
)  # fmt: skip
