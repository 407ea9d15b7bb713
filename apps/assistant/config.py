"""How an assistant is made, from a JSON file: which two models are joined and how, what on, and for how long.

Three such files lie in configurations/: `debug` needs nothing but this repository, `small_scale` one small GPU, `full_scale`
several large ones.
"""

from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal

from apps.assistant import typed_json
from apps.assistant.records import DESCRIBE
from shared.atomic import write_atomically
from shared.errors import CourseError
from shared.finetuning import AdapterConfig
from shared.training import TrainingConfig

CONFIGURATIONS = Path(__file__).parent / "configurations"
FILE_NAME = "configuration.json"


@dataclass(frozen=True)
class AdaptersChoice:
    """Low-rank corrections to the language model, in place of learning all of it (`shared.finetuning.AdapterConfig`)."""

    targets: tuple[str, ...]
    rank: int
    alpha: float
    dropout: float = 0.0
    dora: bool = False

    def __post_init__(self) -> None:
        if self.rank < 1:
            raise ValueError(f"rank is {self.rank}; expected at least 1")
        if not 0 <= self.dropout < 1:
            raise ValueError(f"dropout is {self.dropout}; expected a chance in [0, 1)")
        self.config()

    def config(self) -> AdapterConfig:
        return AdapterConfig(self.targets, self.rank, self.alpha, self.dropout, self.dora)


@dataclass(frozen=True)
class ModelChoice:
    """Which models are joined.

    vision     folder of a published CLIP
    language   folder of a published Llama or Qwen2, with its tokenizer.json
    connector  what the language model is shown: every patch's vector, or CLIP's one embedding of the picture
    layers     which of the eye's states a patch is shown by, side by side: −2 went into the last block, 0 into the first
    scales     what each of these states is multiplied by, where they differ in size; none: each as it is
    class_token   show, before the patches, the token in which the eye sums the picture up
    weights    how the language model's frozen matrices are stored
    adapters   what is learned beside them; null: the language model itself learns, in stages that say so
    context    tokens of a conversation, the picture's included; longer ones are cut in training and refused later
    caption_prompt   what it is told when nothing but a caption is wanted

    A folder is looked for from where one stands, from the repository's root, and in the data folder (`data/cache`).
    """

    vision: str
    language: str
    connector: Literal["patches", "embedding"] = "patches"
    layers: tuple[int, ...] = (-2,)
    scales: tuple[float, ...] = ()
    class_token: bool = False
    weights: Literal["float32", "int8", "nf4"] = "float32"
    adapters: AdaptersChoice | None = None
    context: int = 2048
    caption_prompt: str = DESCRIBE

    def __post_init__(self) -> None:
        if self.weights != "float32" and self.adapters is None:
            raise ValueError(f"weights are stored as {self.weights} and cannot learn; give adapters, which can")
        if not self.layers:
            raise ValueError("layers is empty; expected one of the eye's states at least, such as [-2]")
        if self.scales and len(self.scales) != len(self.layers):
            raise ValueError(f"{len(self.scales)} scales for {len(self.layers)} layers; expected one for each, or none")
        if self.context < 2:
            raise ValueError(f"context is {self.context}; expected room for a question and an answer")


@dataclass(frozen=True)
class StageChoice:
    """One stage of training: what learns, on which files, for how long.

    learns  "projector", or that and "language" (its adapters, where there are some)
    data    files of records; what begins with "toy:" is written first, from the toy world: "toy:captions", "toy:instructions"
    images  folder that the records' images are named from; null: that of the file itself
    """

    name: str
    learns: tuple[Literal["projector", "language"], ...]
    data: tuple[str, ...]
    steps: int
    batch_size: int
    learning_rate: float
    images: str | None = None
    warmup_steps: int = 0
    accumulate: int = 1
    weight_decay: float = 0.0
    optimizer: Literal["adamw", "muon"] = "adamw"

    def __post_init__(self) -> None:
        if not self.learns or not self.data:
            raise ValueError("learns and data each need one entry at least")
        if self.batch_size < 1 or self.learning_rate <= 0:
            raise ValueError("batch_size and learning_rate must be above 0")
        if not self.name.isidentifier():
            raise ValueError(f"name is {self.name!r}; it becomes a folder: expected letters, digits and _")
        TrainingConfig(self.steps, self.learning_rate, warmup_steps=self.warmup_steps, accumulate=self.accumulate)


@dataclass(frozen=True)
class Configuration:
    """All that a run is made of.

    toy_examples  how many records "toy:…" files have
    skip_bad      leave bad records out, in place of refusing the file
    precision     of what is computed: bfloat16 is mixed precision, the weights that learn stay in float32
    recompute     blocks forget what happens inside them and compute it again on the way back: slower, much less memory
    parallel      under torchrun: a copy of the model for each process, or a share
    """

    model: ModelChoice
    stages: tuple[StageChoice, ...]
    toy_examples: int = 0
    skip_bad: bool = False
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
            raise ValueError(
                f"the stages are called {', '.join(names) or 'nothing'}; expected one or more, each of its own name"
            )
        if self.toy_examples < 1 and any(file.startswith("toy:") for stage in self.stages for file in stage.data):
            raise ValueError(
                f"toy_examples is {self.toy_examples}, but a stage learns from the toy world; expected at least 1"
            )
        for stage in self.stages:
            self.training(stage)

    def training(self, stage: StageChoice) -> TrainingConfig:
        """What the training loop is told of a stage."""
        return TrainingConfig(
            stage.steps,
            stage.learning_rate,
            optimizer=stage.optimizer,
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

    def learning_from(self, *files: str) -> "Configuration":
        """The same, where every stage learns from these files; their images lie beside them."""
        return replace(self, stages=tuple(replace(stage, data=files, images=None) for stage in self.stages))


def load(file: Path | str) -> Configuration:
    """A configuration from its file. Raises CourseError that names every key that does not fit, and what would."""
    file = Path(file)
    try:
        return typed_json.parse(Configuration, file.read_text(encoding="utf-8"))
    except OSError as error:
        raise CourseError(
            f"{file} cannot be read ({error.strerror}); give a configuration's file, such as those in {CONFIGURATIONS}"
        ) from error
    except typed_json.Misfits as error:
        raise CourseError(
            f"{file} is no configuration of an assistant:\n  " + str(error).replace("\n", "\n  ")
        ) from error
    except ValueError as error:
        raise CourseError(f"{file} is no JSON ({error})") from error


def save(configuration: Configuration, file: Path | str) -> None:
    """Write the file that `load` reads, whole or not at all. Raises CourseError when the disk refuses."""
    write_atomically(Path(file), typed_json.written(configuration).encode())
