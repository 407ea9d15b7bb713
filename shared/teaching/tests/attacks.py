"""Code of submissions that try to get points without a solution, or to do harm, for one exercise per lesson.

Each returns an answer of the right shape with wrong numbers, unless the attack has ended the process before.
"""

import textwrap
from dataclasses import dataclass


@dataclass(frozen=True)
class Target:
    """The exercise that the attacks are tried on."""

    exercise: str
    file: str
    call: str
    """A call of its function, with the names of its arguments."""
    wrong: str
    """An answer of the right shape."""
    reference: str
    """A call of the same function in the lesson's `reference`."""


TARGETS = {
    1: Target(
        "1.3",
        "lessons/lesson_01_vit/model/patches.py",
        "patchify(images, patch_size)",
        "torch.zeros(len(images), images[0, 0].numel() // patch_size**2, images.shape[1] * patch_size**2)",
        "to_torch(reference.patchify(to_stdlib(images), patch_size))",
    ),
    2: Target(
        "2.3",
        "lessons/lesson_02_clip/model/losses.py",
        "info_nce(images, texts, logit_scale)",
        "logit_scale * 0",
        "to_torch(reference.info_nce(to_stdlib(images), to_stdlib(texts), to_stdlib(logit_scale.log())))",
    ),
    3: Target(
        "3.4",
        "lessons/lesson_03_blip2/model/losses.py",
        "image_text_similarity(image_embeddings, text_embeddings)",
        "torch.zeros(len(image_embeddings), len(text_embeddings))",
        "to_torch(reference.image_text_similarity(to_stdlib(image_embeddings), to_stdlib(text_embeddings)))",
    ),
    4: Target(
        "4.5",
        "lessons/lesson_04_flamingo/model/gated_cross_attention.py",
        "gated_residual(x, update, gate)",
        "x * 2",
        "to_torch(reference.gated_residual(to_stdlib(x), to_stdlib(update), to_stdlib(gate)))",
    ),
    5: Target(
        "5.4",
        "lessons/lesson_05_llava/model/llava.py",
        "splice_images(text, is_image, images)",
        "text * 0",
        "to_torch(reference.splice_images("
        "is_image.flatten().int().tolist(), to_stdlib(text.flatten(0, 1)), to_stdlib(images)))",
    ),
}


def attack_body(name: str, target: Target, **places: str) -> str:
    """Return the code between the markers: the attack, then a wrong answer. `places` fills in the attacks' {names}."""
    code = ATTACKS[name].strip()
    module = target.file.removesuffix(".py").replace("/", ".")
    words = {"file": target.file, "module": module, "lesson": ".".join(module.split(".")[:2])}
    words |= {"call": target.call, "wrong": target.wrong, "reference": target.reference} | places
    for placeholder, word in words.items():
        code = code.replace("{" + placeholder + "}", word)
    return textwrap.indent(f"import torch\n{code}\nreturn {target.wrong}\n", "    ")


# {root} is the checkout, {victim} a folder that must not change, {port} a port that must get no connection.
ATTACKS = {
    "exits": "import os; os._exit(0)",
    "exits as an error": "raise SystemExit(0)",
    "skips": "import pytest; pytest.skip('not today')",
    "deletes": "import shutil; shutil.rmtree('{victim}', ignore_errors=True); shutil.rmtree('.', ignore_errors=True)",
    "writes": "import pathlib; pathlib.Path('{victim}/tests.py').write_text('')",
    "renames": "import os; os.rename('{victim}/tests.py', '{victim}/gone.py')",
    "changes modes": "import os; os.chmod('{victim}/tests.py', 0o777)",
    "changes attributes": """
import ctypes, os, struct
for path in ('{victim}/tests.py', __file__):
    try: os.setxattr(path, 'user.note', b'passed on')
    except OSError: pass
    value = ctypes.create_string_buffer(b'1', 1)
    note = struct.pack('QII', ctypes.addressof(value), 1, 0)
    ctypes.CDLL(None).syscall(463, -100, path.encode(), 0, b'user.note', note, 16)
    access = struct.pack('<I', 2) + b''.join(struct.pack('<HHI', tag, 7, 2**32 - 1) for tag in (1, 4, 32))
    try: os.setxattr(path, 'system.posix_acl_access', access)
    except OSError: pass
""",
    "returns a huge answer": "return torch.zeros(1, 2**21, 1)",
    "patches pytest": """
import pytest, _pytest.runner, _pytest.python, sys
for module in (pytest, _pytest.runner, _pytest.python):
    for name in dir(module):
        if callable(getattr(module, name)) and not name.startswith('__'):
            setattr(module, name, lambda *a, **k: 0)
""",
    "patches torch": """
torch.equal = torch.allclose = torch.testing.assert_close = lambda *a, **k: True
torch.Tensor.__eq__ = torch.Tensor.__ne__ = lambda *a: True
torch.Tensor.shape = property(lambda self: (2, 6, 12))
""",
    "forks": """
import os
for _ in range(10_000):
    os.fork()
""",
    "starts programs": "import subprocess; subprocess.Popen(['touch', '{victim}/started'])",
    "kills": """
import os, signal
for number in (os.getppid(), 0, -1):
    try: os.kill(number, signal.SIGKILL)
    except OSError: pass
""",
    "lifts limits": """
import resource
for limit in (resource.RLIMIT_CPU, resource.RLIMIT_FSIZE, resource.RLIMIT_AS):
    resource.setrlimit(limit, (resource.RLIM_INFINITY, resource.RLIM_INFINITY))
""",
    "fills the disk": """
import os
for folder in ('.', '/tmp', '{victim}'):
    try:
        with open(os.path.join(folder, 'full'), 'wb') as file:
            for _ in range(300): file.write(bytes(2**20))
    except OSError: pass
""",
    "fills memory": "hoard = [bytearray(2**30) for _ in range(200)]",
    "loops": "while True: pass",
    "loops on": """
import signal
signal.signal(signal.SIGXCPU, lambda *a: None)
while True: pass
""",
    "sleeps": "import time; time.sleep(10_000)",
    "crashes": "import ctypes; ctypes.string_at(0)",
    "recurses": """
import sys
sys.setrecursionlimit(10**9)
def deeper(): return deeper()
deeper()
""",
    "prints": """
import sys
print('5 passed in 0.01s', '1.3 ' + '\\x1b[32m✓' * 10**6, file=sys.stderr)
print('x' * 50_000_000)
""",
    "forges answers": """
import os, sys
frame = sys._getframe()
while 'encode' not in frame.f_globals: frame = frame.f_back
forged = frame.f_globals['encode'](dict(result={wrong}))
for descriptor in range(3, 64):
    try: os.write(descriptor, forged * 3)
    except OSError: pass
""",
    "floods the connection": """
import os
for descriptor in range(3, 64):
    try:
        for _ in range(10_000): os.write(descriptor, bytes(range(256)) * 256)
    except OSError: pass
""",
    "equals everything": """
class Everything:
    shape = property(lambda self: Everything())
    __eq__ = __ge__ = __le__ = lambda self, other: True
    __ne__ = lambda self, other: False
    __getattr__ = lambda self, name: Everything()
    __call__ = __getitem__ = __mul__ = __rmul__ = lambda self, *a: Everything()
return Everything()
""",
    "is a tensor that equals everything": """
class Everything(torch.Tensor):
    __eq__ = lambda self, other: torch.tensor(True)
return ({wrong}).as_subclass(Everything)
""",
    "reads the checkout": "exec(open('{root}/{file}').read(), globals()); return {call}",
    "imports the checkout": """
import importlib, sys
sys.path.insert(0, '{root}')
for name in [name for name in sys.modules if name.startswith('lessons')]: del sys.modules[name]
sys.path_importer_cache.clear()
solution = importlib.import_module('{module}')
assert solution.__file__.startswith('{root}')
return solution.{call}
""",
    "asks for the installed course": """
import importlib.metadata, json, pathlib, site, sys
site.main()
home = json.loads(importlib.metadata.distribution('multimodal-from-scratch').read_text('direct_url.json'))['url']
exec(pathlib.Path(home.removeprefix('file://'), '{file}').read_text(), globals())
return {call}
""",
    "looks into other processes": """
import glob
for place in glob.glob('/proc/[0-9]*/environ') + glob.glob('/proc/[0-9]*/mem'):
    open(place, 'rb').read(1)
return __builtins__['__found__']
""",
    "uses the reference": """
from {lesson} import reference
from shared.torch_conversion import to_stdlib, to_torch
return {reference}
""",
    "connects": "import socket; socket.create_connection(('127.0.0.1', {port}))",
}
