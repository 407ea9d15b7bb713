"""The claims of lesson 3; unseen combinations are color–shape pairs that no model of the chain was trained on."""

from shared.course.claims import difference, number
from shared.course.lesson import Claim, question
from shared.course.splits import on_splits

EXACT = (
    Claim(
        "masks-agree",
        "exact",
        "The three masks equal those written out in pure Python (mismatched entries).",
        "arXiv:2301.12597, figure 2",
        ("exact",),
        number("exact", "mask_difference"),
        0.0,
        "error",
        at_least=False,
    ),
    Claim(
        "contrast-agrees",
        "exact",
        "Contrastive scores of the pure-Python and the PyTorch first stage (largest difference, float64).",
        "reference.py",
        ("exact",),
        number("exact", "contrast_difference"),
        1e-9,
        "error",
        at_least=False,
    ),
    Claim(
        "generation-agrees",
        "exact",
        "Generation logits of the pure-Python and the PyTorch first stage (largest difference, float64).",
        "reference.py",
        ("exact",),
        number("exact", "generation_difference"),
        1e-9,
        "error",
        at_least=False,
    ),
    Claim(
        "frozen-weights-unchanged",
        "exact",
        "The weights of vision encoder and language model are unchanged after training (arms with another hash).",
        "arXiv:2301.12597, section 3",
        ("both stages",),
        number("both stages", "frozen_changed"),
        0.0,
        "error",
        at_least=False,
    ),
)

LEARNS = (
    *question(
        "Does BLIP-2 caption and answer?",
        Claim(
            "answers",
            "learns",
            "Accuracy on questions about unseen color–shape combinations, Q-Former with both stages.",
            "arXiv:2301.12597, section 4.3",
            ("both stages",),
            number("both stages", "answers"),
            0.5,
            baseline=number("both stages", "answers_blind"),
            baseline_name="blind",
        ),
        Claim(
            "captions-seen",
            "learns",
            "Captions of new scenes with seen combinations that name every object correctly.",
            "arXiv:2301.12597, section 4.2",
            ("both stages",),
            number("both stages", "seen_captions"),
            0.5,
        ),
        Claim(
            "captions-unseen",
            "learns",
            "Captions of scenes with unseen combinations that name every object correctly.",
            "arXiv:2301.12597, section 4.2",
            ("both stages", "mean pooling"),
            number("both stages", "captions"),
            0.05,
            baseline=number("mean pooling", "captions"),
            baseline_name="mean pooling",
        ),
        Claim(
            "text-only-upper-bound",
            "learns",
            "Upper bound: captions of unseen combinations by the same language model, with the scene given as text.",
            "",
            ("text-only upper bound",),
            number("text-only upper bound", "captions"),
            0.9,
        ),
        Claim(
            "retrieval",
            "learns",
            "Retrieval of full captions of scenes with unseen combinations after the first stage alone (recall at 1).",
            "arXiv:2301.12597, section 4.4",
            ("both stages",),
            number("both stages", "retrieval"),
            0.6,
            baseline=number("both stages", "retrieval_chance"),
            baseline_name="chance",
        ),
    ),
)

PAPER = (
    *question(
        "Do the parts of BLIP-2 help?",
        Claim(
            "first-stage-helps",
            "paper",
            "Accuracy on questions at equal steps of the second stage, with the first stage − without.",
            "arXiv:2301.12597, section 4.1, figure 5",
            ("both stages", "stage 2 alone"),
            difference("both stages", "stage 2 alone", "answers"),
            0.15,
            "points",
            expected="not reproduced",
            paper_value="a substantial gain, as curves only (figure 5)",
            hypothesis="without the first stage, the second stage reaches the same loss after a hundred steps. "
            "The short "
            "captions contain everything that is tested, and the language model is small, so its cross-entropy "
            "soon trains "
            "the connector. The paper's captions come from the web, and its language models have billions of weights.",
        ),
        Claim(
            "queries-beat-mean-pooling",
            "paper",
            "Accuracy on questions, Q-Former − mean pooling of the patches.",
            "arXiv:2301.12597, section 3.1",
            ("both stages", "mean pooling"),
            difference("both stages", "mean pooling", "answers"),
            0.1,
            "points",
        ),
        Claim(
            "few-queries-suffice",
            "paper",
            "Caption accuracy on seen combinations, 8 queries − a linear projection of all 64 patches.",
            "arXiv:2301.12597, section 3.1",
            ("both stages", "all patches"),
            difference("both stages", "all patches", "seen_captions"),
            0.0,
            "points",
        ),
        Claim(
            "queries-generalize",
            "paper",
            "Caption accuracy on unseen combinations, 8 queries − a linear projection of all 64 patches.",
            "arXiv:2301.12597, section 3.1",
            ("both stages", "all patches"),
            difference("both stages", "all patches", "captions"),
            0.03,
            "points",
        ),
    ),
)

CLAIMS = on_splits(
    (*EXACT, *LEARNS, *PAPER), others={"captions-seen": "validation", "few-queries-suffice": "validation"}
)
