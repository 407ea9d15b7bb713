"""A small model learns what a large one would have said: not only its answer, but all that it hesitated over."""

from jaxtyping import Bool, Float
from torch import Tensor
from torch.nn import functional as F


def distillation_loss(
    student_logits: Float[Tensor, "batch tokens vocab"],
    teacher_logits: Float[Tensor, "batch tokens teacher_vocab"],
    answers: Bool[Tensor, "batch tokens"],
    temperature: float = 1.0,
) -> Float[Tensor, ""]:
    """temperature² · KL(teacher ‖ student), both softened by the temperature (arXiv:1503.02531, section 2); in nats.

    A mean over the predictions of answers' tokens. Softening shows how the teacher ranks what it does not say, and shrinks
    gradients by temperature²: the factor makes up for that, so that this loss and `sft_loss` can be mixed
    whatever the temperature. The teacher learns nothing.

    Raises ValueError when the vocabularies differ in size, the temperature is not positive, or no token is an answer's.
    """
    if student_logits.shape != teacher_logits.shape:
        raise ValueError(
            f"the student's logits are {list(student_logits.shape)} and the teacher's {list(teacher_logits.shape)}; "
            "both must speak about the same tokens in the same vocabulary"
        )
    if temperature <= 0:
        raise ValueError(f"the temperature is {temperature}; expected a positive number, often between 1 and 4")
    learned = answers[:, 1:]
    if not learned.any():
        raise ValueError("no token of the batch is an answer's; the mean over none of them is no number")
    student = F.log_softmax(student_logits[:, :-1][learned].float() / temperature, dim=-1)
    teacher = F.log_softmax(teacher_logits[:, :-1][learned].detach().float() / temperature, dim=-1)
    return temperature**2 * F.kl_div(student, teacher, reduction="batchmean", log_target=True)
