"""Train an assistant in stages (arXiv:2304.08485, section 4.2): first the projector, then also the language model.

The output folder holds the configuration, a folder with checkpoints and metrics per stage, and finally `model/`, which
`Assistant.from_folder` reads. An interruption loses at most the steps since the last checkpoint.
"""

import contextlib
import json
import os
import shutil
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import torch

from apps.assistant import config as configurations
from apps.assistant.assistant import Assistant
from apps.assistant.build import ModelParts, build_model
from apps.assistant.config import FILE_NAME, TOY_PREFIX, Configuration, ModelConfig, StageConfig
from apps.assistant.model_folder import GenerationSettings
from apps.assistant.toy_files import TRAINING_FILES, write_toy_world
from apps.assistant.training_data import TrainingData, read_training_data
from data.datasets.download import data_folder
from lessons.lesson_00_foundations.decoder.model import language_model as llama
from lessons.lesson_05_llava.model import Llava, first_stage, second_stage
from shared.atomic import write_atomically
from shared.course.lesson import ROOT
from shared.devices import usable_device
from shared.distributed import gather_values, is_main, join
from shared.errors import CourseError
from shared.finetuning import (
    load_adapters,
    merge_and_remove_adapters,
    published_adapter_names,
    save_adapters,
    trainable_fraction,
)
from shared.training import Batches, RunOptions, Stage, TrainingResult, train
from shared.training.lock import exclusive_lock
from shared.training.stages import enter_stage
from shared.training.trackers import require_tracker

TOY_WORLD = "toy-world"
"""Folder of the generated toy-world files in the output folder."""
ADAPTERS = "adapters"
"""Folder of the adapters in the output folder."""
DATA_FINGERPRINTS = "data.json"
"""File of the output folder that holds a hash of each stage's records and images."""


@dataclass(frozen=True)
class AssistantRun:
    """Group what the stages of a run have in common."""

    configuration: Configuration
    output: Path
    resume: bool
    device: torch.device
    parts: ModelParts

    def assistant(self, model: Llava) -> Assistant:
        """Return an assistant with this model."""
        return make_assistant(self.configuration.model, replace(self.parts, model=model), self.configuration.data_names)


def make_assistant(config: ModelConfig, parts: ModelParts, training_data: Sequence[str] = ()) -> Assistant:
    """Return an assistant of the parts; `training_data` names the data sets that its card mentions."""
    settings = GenerationSettings(config.context, config.caption_prompt, tuple(training_data))
    return Assistant(parts.model, parts.tokenizer, parts.preprocessing, settings)


def empty_training_data(config: ModelConfig, parts: ModelParts) -> TrainingData:
    """Return what turns records into tensors, without records."""
    assistant = make_assistant(config, parts)
    return TrainingData(
        [], assistant.template, parts.preprocessing, assistant.image_tokens, config.context, config.caption_prompt
    )


def train_assistant(configuration: Configuration, output: Path, *, resume: bool = False) -> Path:
    """Train as the configuration says, and return the folder of the finished model.

    With `resume` the run in `output` continues, to bit-identical weights. Raises CourseError for missing, damaged or
    inconsistent input, and as `shared.training.train` does.
    """
    require_tracker(configuration.tracker)
    device = usable_device(join(_device_name(configuration.device)))
    parts = build_model(configuration.model, configuration.seed)
    if configuration.model.adapters is not None:  # adapters that cannot be saved are refused before training
        published_adapter_names(parts.model.language_model, llama.weight_names(parts.model.language_model.config))
    run = AssistantRun(configuration, output, resume, device, parts)
    with exclusive_lock(output) if is_main() else contextlib.nullcontext():
        if is_main():
            _prepare_output(run)
        gather_values(None)  # the other processes wait for the files
        empty = empty_training_data(configuration.model, parts)
        for stage in configuration.stages:
            _train_stage(run, stage, empty)
        if is_main():
            _save_model(run)
        gather_values(None)
    return output / "model"


def _device_name(name: str) -> str:
    if name == "auto":
        return "cuda" if torch.cuda.is_available() else "cpu"
    return name


def _prepare_output(run: AssistantRun) -> None:
    """Remove the results of an earlier run, unless it is resumed, and write the configuration and toy-world files."""
    configuration, output = run.configuration, run.output
    if not run.resume:
        for stage in configuration.stages:
            shutil.rmtree(output / stage.name, ignore_errors=True)
        for name in ("model", ADAPTERS):
            shutil.rmtree(output / name, ignore_errors=True)
        (output / DATA_FINGERPRINTS).unlink(missing_ok=True)
    configurations.save(configuration, output / FILE_NAME)
    for name in configuration.toy_names:
        data_file(TOY_PREFIX + name, output)
    if configuration.uses_toy_world:
        write_toy_world(
            output / TOY_WORLD,
            configuration.toy_examples,
            names=configuration.toy_names,
            size=run.parts.preprocessing.size,
            caption_prompt=configuration.model.caption_prompt,
        )


def _check_unchanged(output: Path, stage: StageConfig, data: TrainingData) -> None:
    """Keep the fingerprint of a stage's data, or raise CourseError when a resumed run has kept another one.

    The batches are drawn by the records' numbers, so with other records the run would continue on other batches.
    """
    if all(name.startswith(TOY_PREFIX) for name in stage.data):  # the configuration determines these
        return
    file = output / DATA_FINGERPRINTS
    fingerprints = json.loads(file.read_text()) if file.exists() else {}
    fingerprint = data.fingerprint
    if fingerprints.setdefault(stage.name, fingerprint) != fingerprint:
        raise CourseError(
            f"the data of stage {stage.name!r} ({', '.join(stage.data)}) have changed since the run in {output} began: "
            "records or images differ in content, size or time. Restore them, or start a new run without --resume"
        )
    write_atomically(file, json.dumps(fingerprints, indent=1).encode())


def _train_stage(run: AssistantRun, stage: StageConfig, empty: TrainingData) -> None:
    model, configuration = run.parts.model, run.configuration
    files = [(data_file(name, run.output), _find_data(stage.images) if stage.images else None) for name in stage.data]
    data = read_training_data(files, empty, rules=configuration.rules, skip_bad=configuration.skip_bad)
    batches = Batches(torch.arange(len(data.records)), batch_size=stage.batch_size, seed=configuration.seed)
    training_stage = stage_of(stage, model)
    if is_main():
        _check_unchanged(run.output, stage, data)
        enter_stage(model, training_stage)
        fraction = f"{trainable_fraction(model):.2%} of the weights are trained"
        print(f"{stage.name}: {len(data.records):,} records, {stage.steps:,} steps; {fraction}", flush=True)
        if batches.batch_size < stage.batch_size:
            print(f"  the batches have {batches.batch_size} records instead of {stage.batch_size}", flush=True)
    result = train(
        model,
        batches,
        data.loss,
        configuration.training_config(stage),
        run=RunOptions(
            folder=run.output / stage.name,
            resume=run.resume,
            device=run.device,
            label=stage.name,
            tracker=configuration.tracker,
        ),
        stages=(training_stage,),
    )
    if is_main():
        _print_result(result)


def _print_result(result: TrainingResult) -> None:
    last = result.history[-1]
    print(
        f"  after step {result.steps:,}: loss {last['loss']:.3f}, "
        f"{last['accuracy']:.1%} of the answers' tokens correct",
        flush=True,
    )


def stage_of(stage: StageConfig, model: Llava) -> Stage:
    """Return the training loop's stage: the projector, the language model (its adapters, if it has some), or both."""
    if "language" not in stage.trainable:
        return first_stage(stage.steps)
    both, projector = second_stage(stage.steps, model), first_stage(stage.steps)
    language = tuple(pattern for pattern in both.trainable if pattern not in projector.trainable)
    return both if "projector" in stage.trainable else Stage(stage.steps, language)


def _save_model(run: AssistantRun) -> None:
    """Write the adapters alone in PEFT's layout, then the finished model with merged adapters.

    The last checkpoint of each stage holds the same weights: after a failure here, `--resume` trains nothing again.
    """
    model, config = run.parts.model.cpu(), run.configuration.model
    if config.adapters is not None:
        adapters, names = run.output / ADAPTERS, llama.weight_names(model.language_model.config)
        save_adapters(adapters, model.language_model, names, base_model=config.language)
        if config.weights != "float32":
            # Quantization would round the small corrections away, so they are merged into the original weights.
            projector = model.projector
            model = build_model(replace(config, weights="float32", adapters=None)).model
            model.projector = projector
            load_adapters(adapters, model.language_model, names)
        merge_and_remove_adapters(model.language_model)
    run.assistant(model).save(run.output / "model")


def data_file(name: str, output: Path) -> Path:
    """Return the file of a stage's data. Raises CourseError when it does not exist, or is no toy-world file."""
    if not name.startswith(TOY_PREFIX):
        return _find_data(name)
    toy_name = name.removeprefix(TOY_PREFIX)
    if toy_name not in TRAINING_FILES:
        available = ", ".join(TOY_PREFIX + each for each in TRAINING_FILES)
        raise CourseError(f"data {name!r} does not exist; the toy world has {available}")
    return output / TOY_WORLD / TRAINING_FILES[toy_name]


def _find_data(name: str) -> Path:
    for path in (Path(name), ROOT / name, data_folder() / name):
        if os.path.exists(path):  # Path.exists raises for names that are too long
            return path
    raise CourseError(
        f"{name} exists neither here, nor in {ROOT}, nor in {data_folder()}; the configuration or --data names it"
    )
