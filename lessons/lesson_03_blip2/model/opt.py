"""OPT (arXiv:2205.01068), the language model inside BLIP-2's public weights: a decoder whose parts `opt_config` chooses."""

from pathlib import Path

from lessons.lesson_03_blip2.model import huggingface
from lessons.lesson_03_blip2.model.huggingface_names import opt_table
from shared.pretrained import load_weights, save_pretrained
from shared.transformer import Decoder


class OPT(Decoder):
    """A decoder that reads and writes folders of the published class `OPTForCausalLM`.

    Its config is one of `opt_config`; every other method is `Decoder`'s.
    """

    @classmethod
    def from_pretrained(cls, folder: Path | str) -> "OPT":
        """Load a published `OPTForCausalLM` in evaluation mode. Raises CourseError when the folder holds another model."""
        model = cls(huggingface.read_opt(folder))
        load_weights(model, folder, opt_table())
        return model.eval()

    def save_pretrained(self, folder: Path | str) -> None:
        """Write a folder that `OPTForCausalLM` loads."""
        save_pretrained(folder, self, opt_table(), huggingface.write_opt(self.config))
