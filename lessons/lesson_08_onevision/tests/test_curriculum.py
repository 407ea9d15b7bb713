"""The curriculum planner: the paper's stages, steps in proportion, mixed inputs, and an order from easy to hard."""

from collections import Counter

import pytest
from torch import nn

from lessons.lesson_00_foundations.decoder.model import LanguageModel
from lessons.lesson_05_llava.model import Projector
from lessons.lesson_08_onevision.model import (
    ONEVISION,
    CurriculumStage,
    LlavaOneVision,
    PlaceholderIds,
    VisualLayout,
    plan_curriculum,
)
from shared.finetuning import AdapterConfig, adapter_parameter_names, add_adapters
from shared.training.stages import check_stages, enter_stage
from shared.transformer import DecoderConfig

FIRST, *LATER = ONEVISION


def test_the_papers_four_stages():
    assert [stage.name for stage in ONEVISION] == [
        "alignment",
        "high-quality knowledge",
        "single image",
        "onevision",
    ]
    assert [stage.size for stage in ONEVISION[:3]] == [558_000, 4_000_000, 3_200_000]
    assert set(ONEVISION[-1].weights) == {"image", "images", "video"}
    assert all(set(stage.weights) == {"image"} for stage in ONEVISION[:3])


def test_steps_are_in_proportion_to_the_examples():
    planned = plan_curriculum(1000)
    assert sum(each.steps for each in planned) == 1000
    total = sum(stage.size for stage in ONEVISION)
    for each, stage in zip(planned, ONEVISION, strict=True):
        assert abs(each.steps - 1000 * stage.size / total) < 3
        assert len(each.inputs) == each.steps
    assert [each.steps for each in plan_curriculum(4)] == [1, 1, 1, 1]


def test_the_last_stage_is_a_mix():
    inputs = plan_curriculum(1000)[-1].inputs
    counts, weights = Counter(inputs), ONEVISION[-1].weights
    assert all(abs(counts[name] - len(inputs) * weight) <= 1 for name, weight in weights.items())
    assert all(len(set(inputs[start : start + 8])) == 3 for start in range(0, len(inputs) - 8, 8))


def test_types_of_input_without_data_are_left_out():
    planned = plan_curriculum(100, available=("image", "images"))
    assert set(planned[-1].inputs) == {"image", "images"} and len(planned) == 4
    with pytest.raises(ValueError, match="100 steps for 0 stages with data"):
        plan_curriculum(100, available=())
    assert [each.stage.name for each in plan_curriculum(9, available=("video",))] == ["onevision"]


def small_model():
    language = LanguageModel(DecoderConfig(13, 12, 1, 3, 3, 10))
    layout, ids = VisualLayout(4, 2, ((4, 4),), 1), PlaceholderIds(11, 12)
    return LlavaOneVision(nn.Linear(3, 3), Projector(3, 12), language, layout=layout, placeholders=ids)


def trained(model, stage):
    enter_stage(model, stage)
    return {name.split(".")[0] for name, parameter in model.named_parameters() if parameter.requires_grad}


def test_each_stage_trains_its_parts():
    model, planned = small_model(), plan_curriculum(40)
    stages = tuple(each.training_stage(model) for each in planned)
    check_stages(stages, 40, model)
    everything = {"vision_encoder", "projector", "language_model", "newline"}
    assert [trained(model, stage) for stage in stages] == [{"projector", "newline"}, *[everything] * 3]


def test_with_adapters_only_these_are_trained_of_the_language_model():
    model = small_model()
    add_adapters(model, AdapterConfig(("language_model.blocks.*",), rank=2))
    expected = set(adapter_parameter_names(model))
    enter_stage(model, plan_curriculum(4)[-1].training_stage(model))
    names = {name for name, weight in model.named_parameters() if weight.requires_grad and "language" in name}
    assert names == expected and names
    assert not model.language_model.embedding.weight.requires_grad and model.vision_encoder.weight.requires_grad


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: plan_curriculum(3), "3 steps for 4 stages"),
        (lambda: plan_curriculum(10, []), "a curriculum has no stage"),
        (lambda: plan_curriculum(10, LATER), "is the first and trains vision, projector, language, newline"),
        (lambda: plan_curriculum(10, [FIRST, LATER[1], LATER[0]]), "has up to 5 tiles after 10"),
        (lambda: plan_curriculum(10, [FIRST, LATER[2], LATER[1]]), "no examples of 'images', which stage 'onevision'"),
        (lambda: CurriculumStage("x", {"audio": 3}), "no type of input 'audio'; expected image, images, video"),
        (lambda: CurriculumStage("x", {"image": 3}, ("head",)), "no trained part 'head'"),
        (lambda: CurriculumStage("x", {}), "expected at least one in all"),
        (lambda: CurriculumStage("x", {"image": 5, "video": -1}), "expected at least one in all"),
    ],
)
def test_a_curriculum_that_cannot_work_is_refused(call, message):
    with pytest.raises(ValueError, match=message):
        call()


def test_plans_are_equal_each_time():
    assert plan_curriculum(77) == plan_curriculum(77)
