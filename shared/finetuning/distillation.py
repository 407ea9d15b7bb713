"""Knowledge distillation: a student learns the teacher's whole distribution over the next token."""

from jaxtyping import Bool, Float
from torch import Tensor
from torch.nn import functional as F


def distillation_loss(
    student_logits: Float[Tensor, "batch tokens vocab"],
    teacher_logits: Float[Tensor, "batch tokens teacher_vocab"],
    loss_mask: Bool[Tensor, "batch tokens"],
    temperature: float = 1.0,
) -> Float[Tensor, ""]:
    """Return temperature² · KL(teacher ‖ student), both softened by the temperature, in nats.

    The mean is over the predictions of the tokens in the mask. A higher temperature brings out the teacher's small
    probabilities and shrinks gradients by temperature²; the factor compensates for this, so that the loss can be added
    to `sft_loss` at any temperature. The teacher gets no gradient. Source: arXiv:1503.02531, section 2.

    Raises ValueError when the shapes differ, the temperature is not positive, or no token is in the mask.
    """
    if student_logits.shape != teacher_logits.shape:
        raise ValueError(
            f"the student's logits are {list(student_logits.shape)} and the teacher's {list(teacher_logits.shape)}; "
            "expected equal shapes: the same tokens and the same vocabulary"
        )
    if temperature <= 0:
        raise ValueError(f"the temperature is {temperature}; expected a positive number, often between 1 and 4")
    predicted = loss_mask[:, 1:]
    if not predicted.any():
        raise ValueError(
            "the loss mask selects no token of the batch, so the mean is undefined; check the conversations"
        )
    # exercise 5.14: the distillation loss
    student = F.log_softmax(student_logits[:, :-1][predicted].float() / temperature, dim=-1)
    teacher = F.log_softmax(teacher_logits[:, :-1][predicted].detach().float() / temperature, dim=-1)
    return temperature**2 * F.kl_div(student, teacher, reduction="batchmean", log_target=True)
    # end exercise
