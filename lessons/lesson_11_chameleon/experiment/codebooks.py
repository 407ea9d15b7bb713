"""Image tokenizers compared: codebook sizes, FSQ, ways of learning the codebook, and further losses."""

from dataclasses import asdict
from typing import Any

from lessons.lesson_11_chameleon.experiment.evaluate_tokenizer import measure_tokenizer
from lessons.lesson_11_chameleon.experiment.tokenizer_training import TokenizerRecipe, train_tokenizer
from lessons.lesson_11_chameleon.model.image_tokenizer import TokenizerConfig
from shared.course.context import RunContext
from shared.training import curve_from_history

SIZES = (16, 64, 256, 1024, 4096)
"""Sizes of the compared codebooks."""


def compare_tokenizer(
    context: RunContext, *, held_out: int = 300, config: dict[str, Any] | None = None, **recipe_values: Any
) -> dict[str, Any]:
    """Train one image tokenizer on scenes of one to five objects, and measure its reconstructions.

    held_out       test scenes; validation scenes are half as many
    config         fields of `TokenizerConfig`
    recipe_values  fields of `TokenizerRecipe`

    Names begin with "validation_" for validation; the others are those of `measure_tokenizer`.
    """
    recipe = TokenizerRecipe(config=TokenizerConfig(**(config or {})), seed=context.seed, **recipe_values)
    tokenizer, result = train_tokenizer(recipe, context.run_options())
    measured: dict[str, Any] = {
        "loss_curve": curve_from_history(result.history, "loss"),
        "recipe": asdict(recipe),
        "codebook_size": tokenizer.codebook_size,
        "codes_per_image": tokenizer.config.side**2,
    }
    for split, prefix, count in (("test", "", held_out), ("validation", "validation_", held_out // 2)):
        values = measure_tokenizer(tokenizer, split, count)
        measured |= {f"{prefix}{name}": value for name, value in values.items()}
    return measured
