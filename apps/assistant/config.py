"""The configuration of an assistant in a JSON file: two models and their connector, the data, the training stages.

Three files are in configurations/: `debug` needs only this repository, `small_scale` one small GPU, `full_scale`
several large ones. `checkpoint` makes the model in data/checkpoints.
"""

from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal

from apps.assistant.record_checks import RecordRules
from apps.assistant.records import DESCRIBE
from shared import typed_json
from shared.atomic import write_atomically
from shared.errors import CourseError
from shared.finetuning import AdapterConfig
from shared.json_text import shorten
from shared.text_files import read_text
from shared.training import TrainingConfig

CONFIGURATIONS = Path(__file__).parent / "configurations"
FILE_NAME = "configuration.json"
RESERVED_NAMES, MAX_NAME = ("model", "adapters"), 100
"""Folders of a run that are no stage's, and the longest name of a stage."""
TOY_PREFIX = "toy:"
"""Data files with this prefix are generated from the toy world."""


@dataclass(frozen=True)
class AdapterSettings:
    """Set the low-rank adapters of the language model, as `shared.finetuning.AdapterConfig` defines them."""

    targets: tuple[str, ...]
    rank: int
    alpha: float
    dropout: float = 0.0
    dora: bool = False

    def __post_init__(self) -> None:
        if self.rank < 1:
            raise ValueError(f"rank is {self.rank}; expected at least 1")
        if not 0 <= self.dropout < 1:
            raise ValueError(f"dropout is {self.dropout}; expected a probability in [0, 1)")
        self.config()

    def config(self) -> AdapterConfig:
        """Return the settings as `add_adapters` takes them."""
        return AdapterConfig(self.targets, self.rank, self.alpha, self.dropout, self.dora)


@dataclass(frozen=True)
class ModelConfig:
    """Describe the two models and how they are connected.

    vision            folder of a published CLIP
    language          folder of a published Llama or Qwen2, with its tokenizer.json
    connector         input of the language model: every patch's features, or CLIP's one embedding of the image
    feature_layers    hidden states that form a patch's features, concatenated: −2 entered the last block
    keep_class_token  whether the class token precedes the patches
    weights           storage of the language model's frozen linear layers
    adapters          adapters that are trained instead of the language model; null: it is trained in full
    context           tokens of a conversation, images included; training cuts longer ones, but never inside an image;
                      the service refuses them
    caption_prompt    the request for a caption: in training where a flat record has no prompt, in evaluation, and in
                      the service

    A folder is searched in the working directory, the repository's root, and the data folder (`data/cache`).
    """

    vision: str
    language: str
    connector: Literal["patches", "embedding"] = "patches"
    feature_layers: tuple[int, ...] = (-2,)
    keep_class_token: bool = False
    weights: Literal["float32", "int8", "nf4"] = "float32"
    adapters: AdapterSettings | None = None
    context: int = 2048
    caption_prompt: str = DESCRIBE

    def __post_init__(self) -> None:
        if self.weights != "float32" and self.adapters is None:
            raise ValueError(f"weights stored as {self.weights} cannot be trained; add adapters, which can")
        if not self.feature_layers:
            raise ValueError("feature_layers is empty; expected at least one hidden state, such as [-2]")
        if self.context < 2:
            raise ValueError(f"context is {self.context}; expected at least 2, for a question and an answer")


@dataclass(frozen=True)
class StageConfig:
    """Describe one stage of training.

    trainable  "projector", "language" (its adapters, if it has some), or both
    data       files of records; names such as "toy:captions" are generated from the toy world (toy_files.py)
    images     folder of the records' images; null: the folder of the file
    schedule   of the learning rate: "constant" after the warm-up suits a stage that others follow
    """

    name: str
    trainable: tuple[Literal["projector", "language"], ...]
    data: tuple[str, ...]
    steps: int
    batch_size: int
    learning_rate: float
    images: str | None = None
    warmup_steps: int = 0
    accumulate: int = 1
    weight_decay: float = 0.0
    optimizer: Literal["adamw", "muon"] = "adamw"
    schedule: Literal["cosine", "constant", "wsd"] = "cosine"

    def __post_init__(self) -> None:
        if not self.trainable or not self.data:
            raise ValueError("trainable and data each need at least one entry")
        if self.batch_size < 1 or self.learning_rate <= 0:
            raise ValueError("batch_size and learning_rate must be above 0")
        if not self.name.isidentifier() or len(self.name) > MAX_NAME or self.name in RESERVED_NAMES:
            raise ValueError(
                f"name is {shorten(self.name)}, which names a folder; expected at most {MAX_NAME} letters, digits "
                f"and _, and not {' or '.join(RESERVED_NAMES)}"
            )
        TrainingConfig(
            self.steps,
            self.learning_rate,
            warmup_steps=self.warmup_steps,
            accumulate=self.accumulate,
            weight_decay=self.weight_decay,
        )


@dataclass(frozen=True)
class Configuration:
    """Describe a complete run.

    toy_examples  number of records in a toy-world file
    skip_bad      leave bad records out instead of refusing the file
    outside_images, several_answers  what a file of records may hold (record_checks.py)
    tracker       where metrics go besides the run's own files: "wandb", or null for nowhere
    precision     of the computation: bfloat16 is mixed precision, trained weights stay in float32
    recompute     recompute activations in the backward pass: slower, with much less memory
    parallel      under torchrun: "ddp" copies the model to each process, "fsdp" shards it
    """

    model: ModelConfig
    stages: tuple[StageConfig, ...]
    toy_examples: int = 0
    skip_bad: bool = False
    outside_images: bool = False
    several_answers: bool = False
    tracker: Literal["wandb"] | None = None
    precision: Literal["float32", "bfloat16"] = "float32"
    recompute: bool = False
    parallel: Literal["ddp", "fsdp"] = "ddp"
    device: Literal["cpu", "cuda", "auto"] = "auto"
    seed: int = 0
    log_every: int = 10
    checkpoint_every: int = 100

    def __post_init__(self) -> None:
        names = [stage.name for stage in self.stages]
        if not names or len(set(names)) < len(names):
            raise ValueError(f"the stages are named {', '.join(names) or 'nothing'}; expected one or more unique names")
        if self.toy_examples < 1 and self.uses_toy_world:
            raise ValueError(f"toy_examples is {self.toy_examples}, but a stage trains on the toy world; expected ≥ 1")
        for stage in self.stages:
            self.training_config(stage)

    @property
    def rules(self) -> RecordRules:
        """What a file of records may hold."""
        return RecordRules(self.outside_images, self.several_answers)

    @property
    def uses_toy_world(self) -> bool:
        """Whether a stage trains on generated toy-world files."""
        return bool(self.toy_names)

    @property
    def toy_names(self) -> tuple[str, ...]:
        """The names of the generated toy-world files, without the prefix."""
        files = dict.fromkeys(file for stage in self.stages for file in stage.data if file.startswith(TOY_PREFIX))
        return tuple(file.removeprefix(TOY_PREFIX) for file in files)

    @property
    def data_names(self) -> tuple[str, ...]:
        """The names of all training files, without their folders."""
        return tuple(dict.fromkeys(Path(file).name for stage in self.stages for file in stage.data))

    def training_config(self, stage: StageConfig) -> TrainingConfig:
        """Return the training loop's settings of a stage."""
        return TrainingConfig(
            stage.steps,
            stage.learning_rate,
            optimizer=stage.optimizer,
            schedule=stage.schedule,
            betas=(0.9, 0.95) if stage.optimizer == "muon" else (0.9, 0.999),
            weight_decay=stage.weight_decay,
            warmup_steps=stage.warmup_steps,
            accumulate=stage.accumulate,
            precision=self.precision,
            recompute=self.recompute,
            parallel=self.parallel,
            seed=self.seed,
            log_every=self.log_every,
            checkpoint_every=self.checkpoint_every,
        )

    def with_data(self, *files: str) -> "Configuration":
        """Return a copy whose stages all train on these files, with images beside them."""
        return replace(self, stages=tuple(replace(stage, data=files, images=None) for stage in self.stages))


def load(file: Path | str) -> Configuration:
    """Read a configuration. Raises CourseError, which names every wrong key and what was expected."""
    file = Path(file)
    text = read_text(file, advice=f"Expected a configuration such as those in {CONFIGURATIONS}")
    try:
        return typed_json.parse(Configuration, text)
    except typed_json.JsonErrors as error:
        raise CourseError(
            f"{file} is no configuration of an assistant:\n  " + str(error).replace("\n", "\n  ")
        ) from error
    except ValueError as error:
        raise CourseError(f"{file} is no JSON ({error})") from error


def save(configuration: Configuration, file: Path | str) -> None:
    """Write the file that `load` reads, atomically. Raises CourseError when the disk refuses."""
    write_atomically(Path(file), typed_json.to_json(configuration).encode())
