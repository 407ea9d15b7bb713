"""The kernels compiled for Hopper on a machine that has none: what the assembler made of real configurations.

The launches are the real ones, caught before they need a GPU; the compiler that comes with Triton does the rest.
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

HOPPER = GPUTarget("cuda", 90, 32)
MOST_SHARED_MEMORY = 227 * 1024
WIDE_COPY = r"LDGSTS\.E\.BYPASS(\.LTC128B)?\.128.*"
LENGTH = 2048


@pytest.fixture
def launches(monkeypatch):
    """Every launch of a kernel: the kernel, its arguments and its options."""
    caught = []

    def catch(kernel, *args, grid, warmup, **options):
        caught.append((kernel, args, options))

    monkeypatch.setattr(JITFunction, "run", catch)
    return caught


def compiled(launch):
    kernel, args, options = launch
    backend = make_backend(HOPPER)
    bind = create_function_from_signature(kernel.signature, kernel.params, backend)
    bound, specialization, rest = bind(*args, **options)
    flags, signature, constants, attributes = kernel._pack_args(backend, options, bound, specialization, rest)
    source = ASTSource(kernel, signature, constants, attributes)
    return triton.compile(source, target=HOPPER, options=flags.__dict__)


def assembly(kernel, folder: Path) -> tuple[list[str], dict[str, int]]:
    """The lines of machine code, and the registers, stack and local memory that they need."""
    tools = Path(triton.__file__).parent / "backends" / "nvidia" / "bin"
    file = folder / "kernel.cubin"
    file.write_bytes(kernel.asm["cubin"])
    use = subprocess.run([tools / "cuobjdump", "-res-usage", file], capture_output=True, text=True, check=True).stdout
    code = subprocess.run([tools / "nvdisasm", "-c", file], capture_output=True, text=True, check=True).stdout
    resources = {name: int(number) for name, number in re.findall(r"\b(REG|STACK|LOCAL):(\d+)", use)}
    assert resources.keys() == {"REG", "STACK", "LOCAL"}
    return code.splitlines(), resources


def loops(code: list[str]) -> list[list[str]]:
    """The innermost loops: from a label to the branch back to it, with no other such branch between."""
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


def _everything() -> Mask:
    return Mask(True, 100, *(_count() for _ in range(6)))


# As the course's models call it: type, query heads, key heads, head and value width, mask, softcap.
CONFIGURATIONS = {
    "ViT-B": (torch.bfloat16, 12, 12, 64, 64, Mask(), None),
    "SigLIP SO400m, packed": (torch.bfloat16, 16, 16, 72, 72, Mask(segment_q=_count() // 300, segment_k=_count() // 300), None),
    "Llama 3": (torch.bfloat16, 32, 8, 128, 128, Mask(causal=True), None),
    "Gemma 2": (torch.float16, 16, 8, 256, 256, Mask(causal=True, window=512), 50.0),
    "DeepSeek V3, everything": (torch.bfloat16, 16, 16, 192, 128, _everything(), None),
    "float32": (torch.float32, 12, 12, 64, 64, Mask(causal=True), None),
}  # fmt: skip


@pytest.mark.parametrize("name", CONFIGURATIONS)
def test_kernels_for_hopper(name, launches, tmp_path):
    """Tensor cores at work, shared memory that fits, and no number put aside for want of registers."""
    dtype, heads, kv_heads, head_dim, value_dim, mask, softcap = CONFIGURATIONS[name]

    def tensor(heads: int, dim: int) -> torch.Tensor:
        return torch.empty(1, LENGTH, heads, dim, dtype=dtype).transpose(1, 2)

    q, k, v = tensor(heads, head_dim), tensor(kv_heads, head_dim), tensor(kv_heads, value_dim)
    settings = {"scale": head_dim**-0.5, "softcap": softcap}
    out, lse = triton_forward.forward(q, k, v, mask, **settings)
    triton_backward.backward(q, k, v, out, lse, tensor(heads, value_dim), None, mask, **settings)
    ours = [launch for launch in launches if launch[0].__name__ in ("forward_kernel", "keys_kernel", "queries_kernel")]
    assert len(ours) == 3
    for launch in ours:
        kernel = compiled(launch)
        code, resources = assembly(kernel, tmp_path)
        assert "wgmma.mma_async" in kernel.asm["ptx"] or dtype == torch.float32
        assert number_of("HGMMA.*", code) + number_of("HMMA.*", code) > 0
        assert kernel.metadata.shared <= MOST_SHARED_MEMORY
        assert number_of(WIDE_COPY, code) > 0 or dtype == torch.float32, (
            "blocks are not fetched 16 bytes at a time, while others are computed"
        )
        with_products = [loop for loop in loops(code) if number_of("HGMMA.*|HMMA.*", loop)]
        assert len(with_products) == 2, "one loop over full blocks and one over partial ones"
        for loop in with_products:
            assert number_of("LDL|STL", loop) == 0, "numbers are put aside inside a loop"
        # Around the loops, the widest heads may put a few addresses aside.
        allowed = 128 if max(head_dim, value_dim) > 128 or dtype == torch.float32 else 0
        assert resources["STACK"] <= allowed and resources["LOCAL"] == 0, (launch[0].__name__, resources)


@pytest.mark.parametrize("mask", [Mask(causal=True), Mask(causal=True, position_q=_count(1), segment_k=_count())])
def test_decoding_for_hopper(mask, launches, tmp_path):
    """All its kernels, among them those that list the blocks to visit."""
    q, k = (torch.empty(1, n, heads, 128, dtype=torch.bfloat16).transpose(1, 2) for n, heads in ((1, 32), (LENGTH, 8)))
    triton_decode.decode(q, k, k, mask, scale=0.1, softcap=None, splits=16)
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
