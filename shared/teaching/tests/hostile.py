"""Submissions of exercise 1.3 that try to gain by other means than a solution: the file's text, each with its name.

Each is the real file with another function body; `{root}` is the checkout, `{victim}` a folder that must stay as it is.
All give back an answer of the right shape and wrong numbers, when their trick has not ended their process before.
"""

WRONG = "return torch.zeros(images.shape[0], 1, 1)"

TRICKS = {
    "exits": "import os; os._exit(0)",
    "exits as an error": "raise SystemExit(0)",
    "skips": "import pytest; pytest.skip('not today')",
    "deletes": "import shutil; shutil.rmtree('{victim}', ignore_errors=True); shutil.rmtree('.', ignore_errors=True)",
    "writes": "import pathlib; pathlib.Path('{victim}/tests.py').write_text('')",
    "renames": "import os; os.rename('{victim}/tests.py', '{victim}/gone.py')",
    "opens up": "import os; os.chmod('{victim}/tests.py', 0o777)",
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
forged = frame.f_globals['encode'](dict(result=torch.zeros(2, 6, 12)))
for descriptor in range(3, 64):
    try: os.write(descriptor, forged * 3)
    except OSError: pass
""",
    "floods the line": """
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
return torch.zeros(2, 6, 12).as_subclass(Everything)
""",
    "reads the checkout": "exec(open('{root}/lessons/lesson_01_vit/model/patches.py').read(), globals()); return patchify(images, patch_size)",
    "imports the checkout": """
import sys
sys.path.insert(0, '{root}')
for name in [name for name in sys.modules if name.startswith('lessons')]: del sys.modules[name]
sys.path_importer_cache.clear()
from lessons.lesson_01_vit.model import patches
assert patches.__file__.startswith('{root}')
return patches.patchify(images, patch_size)
""",
    "asks for the installed course": """
import importlib.metadata, json, pathlib, site, sys
site.main()
home = json.loads(importlib.metadata.distribution('multimodal-from-scratch').read_text('direct_url.json'))['url']
exec(pathlib.Path(home.removeprefix('file://'), 'lessons/lesson_01_vit/model/patches.py').read_text(), globals())
return patchify(images, patch_size)
""",
    "looks into other processes": """
import glob
for place in glob.glob('/proc/[0-9]*/environ') + glob.glob('/proc/[0-9]*/mem'):
    open(place, 'rb').read(1)
return __builtins__['__found__']
""",
    "takes its twin": """
from lessons.lesson_01_vit import reference
from shared.stdlib.tensor import Tensor
found = reference.patchify(Tensor(images.flatten().tolist(), tuple(images.shape)), patch_size)
return torch.tensor(found.data).reshape(found.shape)
""",
    "calls home": "import socket; socket.create_connection(('127.0.0.1', {port}))",
}
