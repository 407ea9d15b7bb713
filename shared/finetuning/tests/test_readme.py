"""The README's examples run and its arithmetic is right."""

import math
import re
from pathlib import Path

from shared.finetuning import normal_float_levels
from shared.finetuning.blockwise_8bit import GROUP
from shared.finetuning.nf4 import BLOCK, LEVELS

PAGE = (Path(__file__).parents[1] / "README.md").read_text(encoding="utf-8")


def test_the_examples_run(capsys):
    namespace: dict = {}
    for example in re.findall(r"```python\n(.*?)```", PAGE, flags=re.S):
        exec(example, namespace)
    counts = {name: [int(n.replace(",", "")) for n in re.findall(r"[\d,]{3,}", line)] for name, line in _lines(capsys)}
    assert counts["LoRA"][1:] == counts["QLoRA"][1:]
    assert counts["QLoRA"][0] < counts["full"][0] / 4 and counts["LoRA"][1] < counts["full"][1] / 20
    assert all(moments == 2 * gradients for _, gradients, moments in counts.values())
    assert math.isclose(namespace["metrics"]["reward_margin"].item(), 0, abs_tol=1e-6)
    assert math.isclose(namespace["preference"].item(), math.log(2), rel_tol=1e-5)
    assert any(p.grad is not None and p.grad.abs().sum() > 0 for p in namespace["lora"].parameters())


def _lines(capsys):
    return [(line.split()[0], line) for line in capsys.readouterr().out.splitlines()]


def test_the_numbers_are_right():
    assert f"is {2 * 8 * 4096:,} numbers in place of {4096**2:,}" in PAGE
    bits = 8 / BLOCK + 32 / (BLOCK * GROUP)
    assert f"8 / {BLOCK} + 32 / ({BLOCK} · {GROUP}) = {bits:.3f} bits" in PAGE and f"costs {4 + bits:.3f} bits" in PAGE
    difference = max(abs(a - b) for a, b in zip(normal_float_levels(), LEVELS, strict=True))
    assert "differs in the seventh decimal" in PAGE and 1e-7 < difference < 1e-6
