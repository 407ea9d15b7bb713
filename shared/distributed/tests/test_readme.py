"""The README uses options that exist, and commands that a shell accepts."""

import re
import subprocess
from pathlib import Path

from torch.distributed.run import get_args_parser

# A backslash at the end of a line continues a command.
PAGE = (Path(__file__).parents[1] / "README.md").read_text(encoding="utf-8").replace("\\\n", " ")
SHELL = re.findall(r"```sh\n(.*?)```", PAGE, flags=re.S)


def test_every_option_of_torchrun_exists_and_is_explained():
    existing = {option for action in get_args_parser()._actions for option in action.option_strings}
    used = set()
    for block in SHELL:
        for command in re.findall(r"torchrun (.*?) -m ", block):
            used |= set(re.findall(r"--[a-z-]+", command))
    explained = set(re.findall(r"^\| `(--[a-z-]+)", PAGE, flags=re.M))
    assert used - existing == set() and used - explained == set()
    slurm = set(re.findall(r"^#SBATCH (--[a-z-]+)", PAGE, flags=re.M))
    example_options = set(re.findall(r"(--[a-z-]+)", " ".join(re.findall(r"-m shared\.training\.example(.*)", PAGE))))
    assert explained - existing == slurm | example_options


def test_the_example_has_its_options():
    for option in ("--device", "--parallel", "--folder"):
        assert f'add_argument("{option}"' in (Path(__file__).parents[2] / "training" / "example.py").read_text()


def test_a_shell_accepts_the_commands():
    for block in SHELL:
        subprocess.run(["bash", "-n"], input=block, text=True, check=True)


def test_every_link_has_a_target():
    for link in re.findall(r"\]\(([^)#]+)\)", PAGE):
        if not link.startswith("http"):
            assert (Path(__file__).parents[1] / link).exists(), link
