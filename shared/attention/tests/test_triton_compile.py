"""The kernels compiled for Hopper on a machine without one: properties of the machine code of real configurations.

The launches are the real ones, captured before they need a GPU, and compiled by the compiler that comes with Triton.
"""

import os
import re
import subprocess
from pathlib import Path

import pytest
import torch

from shared.attention import Mask

triton = pytest.importorskip("triton")
if os.environ.get("TRITON_INTERPRET") == "1":
    pytest.skip("the interpreter compiles nothing", allow_module_level=True)

from triton.backends.compiler import GPUTarget  # noqa: E402
from triton.compiler import ASTSource, make_backend  # noqa: E402
from triton.runtime.jit import JITFunction, create_function_from_signature  # noqa: E402

from shared.attention import triton_backward, triton_decode, triton_forward  # noqa: E402
from shared.attention.inputs import AttentionInputs, OutputGradient  # noqa: E402

HOPPER = GPUTarget("cuda", 90, 32)
MOST_SHARED_MEMORY = 227 * 1024
WIDE_COPY = r"LDGSTS\.E\.BYPASS(\.LTC128B)?\.128.*"
LENGTH = 2048


@pytest.fixture
def launches(monkeypatch):
    """Record every launch of a kernel: the kernel, its arguments and its options."""
    recorded = []

    def record(kernel, *args, grid, warmup, **options):
        recorded.append((kernel, args, options))

    monkeypatch.setattr(JITFunction, "run", record)
    return recorded


def compiled(launch):
    kernel, args, options = launch
    backend = make_backend(HOPPER)
    bind = create_function_from_signature(kernel.signature, kernel.params, backend)
    bound, specialization, rest = bind(*args, **options)
    flags, signature, constants, attributes = kernel._pack_args(backend, options, bound, specialization, rest)
    source = ASTSource(kernel, signature, constants, attributes)
    return triton.compile(source, target=HOPPER, options=flags.__dict__)


def assembly(kernel, folder: Path) -> tuple[list[str], dict[str, int]]:
    """Return the lines of machine code, and the registers, stack and local memory that they use."""
    tools = Path(triton.__file__).parent / "backends" / "nvidia" / "bin"
    file = folder / "kernel.cubin"
    file.write_bytes(kernel.asm["cubin"])
    use = subprocess.run([tools / "cuobjdump", "-res-usage", file], capture_output=True, text=True, check=True).stdout
    code = subprocess.run([tools / "nvdisasm", "-c", file], capture_output=True, text=True, check=True).stdout
    resources = {name: int(number) for name, number in re.findall(r"\b(REG|STACK|LOCAL):(\d+)", use)}
    assert resources.keys() == {"REG", "STACK", "LOCAL"}
    return code.splitlines(), resources


def loops(code: list[str]) -> list[list[str]]:
    """Return the innermost loops: from a label to the branch back to it, with no other such branch between."""
    labels = {line[:-1]: number for number, line in enumerate(code) if re.fullmatch(r"\.L_x_\d+:", line)}
    back = []
    for number, line in enumerate(code):
        branch = re.search(r"\bBRA\b.*`\((\.L_x_\d+)\)", line)
        if branch and labels[branch[1]] < number:
            back.append((labels[branch[1]], number))
    inner = [(a, b) for a, b in back if not any((a, b) != (c, d) and a <= c and d <= b for c, d in back)]
    return [code[a:b] for a, b in inner if b - a > 3]


def number_of(instruction: str, code: list[str]) -> int:
    return sum(bool(re.search(rf"\b{instruction}\b", line)) for line in code)


def _count(length: int = LENGTH) -> torch.Tensor:
    return torch.arange(length)[None]


def _every_feature() -> Mask:
    return Mask(True, 100, *(_count() for _ in range(6)))


# As models call it: dtype, query heads, key heads, head and value dimension, mask, softcap.
CONFIGURATIONS = {
    "ViT-B": (torch.bfloat16, 12, 12, 64, 64, Mask(), None),
    "SigLIP SO400m, packed": (
        torch.bfloat16,
        16,
        16,
        72,
        72,
        Mask(segment_q=_count() // 300, segment_k=_count() // 300),
        None,
    ),
    "Llama 3": (torch.bfloat16, 32, 8, 128, 128, Mask(causal=True), None),
    "Gemma 2": (torch.float16, 16, 8, 256, 256, Mask(causal=True, window=512), 50.0),
    "DeepSeek V3, every feature": (torch.bfloat16, 16, 16, 192, 128, _every_feature(), None),
    "float32": (torch.float32, 12, 12, 64, 64, Mask(causal=True), None),
}


@pytest.mark.parametrize("name", CONFIGURATIONS)
def test_kernels_for_hopper(name, launches, tmp_path):
    """The kernels use tensor cores, their shared memory fits, and no register spills inside a loop."""
    dtype, heads, kv_heads, head_dim, value_dim, mask, softcap = CONFIGURATIONS[name]

    def tensor(heads: int, dim: int) -> torch.Tensor:
        return torch.empty(1, LENGTH, heads, dim, dtype=dtype).transpose(1, 2)

    q, k, v = tensor(heads, head_dim), tensor(kv_heads, head_dim), tensor(kv_heads, value_dim)
    inputs = AttentionInputs(q, k, v, mask, head_dim**-0.5, softcap)
    out, lse = triton_forward.forward(inputs)
    triton_backward.backward(inputs, OutputGradient(out, lse, tensor(heads, value_dim)))
    large = [launch for launch in launches if launch[0].__name__ in ("forward_kernel", "keys_kernel", "queries_kernel")]
    assert len(large) == 3
    for launch in large:
        kernel = compiled(launch)
        code, resources = assembly(kernel, tmp_path)
        assert "wgmma.mma_async" in kernel.asm["ptx"] or dtype == torch.float32
        assert number_of("HGMMA.*", code) + number_of("HMMA.*", code) > 0
        assert kernel.metadata.shared <= MOST_SHARED_MEMORY
        assert number_of(WIDE_COPY, code) > 0 or dtype == torch.float32, (
            "blocks are not copied 16 bytes at a time while others are computed"
        )
        with_products = [loop for loop in loops(code) if number_of("HGMMA.*|HMMA.*", loop)]
        assert len(with_products) == 2, "one loop over full blocks and one over partial ones"
        for loop in with_products:
            assert number_of("LDL|STL", loop) == 0, "registers spill inside a loop"
        # Outside the loops, the widest heads may spill a few addresses.
        allowed = 128 if max(head_dim, value_dim) > 128 or dtype == torch.float32 else 0
        assert resources["STACK"] <= allowed and resources["LOCAL"] == 0, (launch[0].__name__, resources)


@pytest.mark.parametrize("mask", [Mask(causal=True), Mask(causal=True, position_q=_count(1), segment_k=_count())])
def test_decoding_for_hopper(mask, launches, tmp_path):
    """All kernels of decoding compile, including those that list the blocks to visit."""
    q, k = (torch.empty(1, n, heads, 128, dtype=torch.bfloat16).transpose(1, 2) for n, heads in ((1, 32), (LENGTH, 8)))
    triton_decode.decode(AttentionInputs(q, k, k, mask, 0.1), 16)
    names = {launch[0].__name__ for launch in launches}
    assert names >= (
        {"decode_kernel", "combine_kernel"} | ({"classify_kernel", "list_kernel"} if mask.tensors else set())
    )
    for launch in launches:
        kernel = compiled(launch)
        code, resources = assembly(kernel, tmp_path)
        assert resources["STACK"] == resources["LOCAL"] == 0, (launch[0].__name__, resources)
        assert kernel.metadata.shared <= MOST_SHARED_MEMORY
        if launch[0].__name__ == "decode_kernel":
            # Sixteen rows are too few for Hopper's wide products; the older, narrower ones do.
            assert number_of("HMMA.*", code) > 0
            assert number_of(WIDE_COPY, code) > 0, "keys are not read 16 bytes at a time"
