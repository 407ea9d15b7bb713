"""Rules for code that ruff and mypy do not check: parameters, file lengths, formatting exceptions, READMEs."""

import ast
import subprocess
from types import SimpleNamespace

import pytest

from shared.course.lesson import ROOT

MAX_PARAMETERS = 7
MAX_LINES = 300
EXCEPTIONS = {("shared/attention/dispatch.py", "attention")}  # one signature for every attention of the course
FILES = subprocess.run(["git", "ls-files", "*.py"], cwd=ROOT, capture_output=True, text=True, check=True).stdout.split()
FILES = [name for name in FILES if (ROOT / name).is_file()]
PACKAGES = [
    path.relative_to(ROOT).as_posix()
    for top in ("shared", "apps")
    for path in sorted((ROOT / top).iterdir())
    if (path / "__init__.py").exists()
]


def functions_with_too_many_parameters(text: str) -> list[str]:
    """Return the names of functions with more than MAX_PARAMETERS parameters, not counting self and cls."""
    names = []
    for node in ast.walk(ast.parse(text)):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            parameters = [each.arg for each in (*node.args.posonlyargs, *node.args.args, *node.args.kwonlyargs)]
            if len([name for name in parameters if name not in ("self", "cls")]) > MAX_PARAMETERS:
                names.append(node.name)
    return names


@pytest.mark.parametrize("name", FILES)
def test_functions_have_few_parameters_and_files_one_subject(name):
    text = (ROOT / name).read_text(encoding="utf-8")
    too_many = {(name, function) for function in functions_with_too_many_parameters(text)}
    assert too_many <= EXCEPTIONS, "group parameters in a frozen dataclass"
    # A reference is one file that is read from top to bottom; tests may be long.
    if "/tests/" not in name and not name.startswith("tests/") and not name.endswith("/reference.py"):
        assert text.count("\n") <= MAX_LINES, f"{name} has more than {MAX_LINES} lines: split it by subject"


def test_a_function_with_eight_parameters_is_noticed():
    parameters = "a, /, b, c, d, e, f, *rest, g, **options"
    assert functions_with_too_many_parameters(f"def few(self, {parameters}): ...") == []
    assert functions_with_too_many_parameters(f"async def many({parameters.replace('g', 'g, h')}): ...") == ["many"]


def test_the_formatter_has_no_exceptions():
    marker = "# fmt: " + "skip"
    assert [name for name in FILES if marker in (ROOT / name).read_text(encoding="utf-8")] == []


@pytest.mark.parametrize("package", PACKAGES)
def test_every_package_has_a_readme(package):
    assert (ROOT / package / "README.md").exists()


def test_the_files_that_run_first_exist_and_do(request):
    conftest = request.config.pluginmanager.getplugin(str(ROOT / "conftest.py"))
    assert [pattern for pattern in conftest.LONG_FILES if not list(ROOT.glob(pattern))] == []
    items = [
        SimpleNamespace(nodeid=f"{file}::test") for file in ("a.py", "lessons/b/lesson.ipynb", "tests/test_smoke.py")
    ]
    conftest.pytest_collection_modifyitems(items)
    assert [item.nodeid.split("/")[-1] for item in items] == ["test_smoke.py::test", "lesson.ipynb::test", "a.py::test"]
