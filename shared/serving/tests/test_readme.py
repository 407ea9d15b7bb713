"""README.md lists every error, setting and file, and its example works."""

import dataclasses
import re
import threading
from pathlib import Path

import httpx
import pytest
from PIL import Image

from shared.serving import Settings
from shared.serving.errors import STATUS
from shared.serving.server import listen, make_server

PAGE = (Path(__file__).parents[1] / "README.md").read_text(encoding="utf-8")


def test_every_error_is_listed():
    listed = {code: int(status) for status, code in re.findall(r"^\| (\d{3}) \| `(\w+)` \|", PAGE, re.M)}
    assert listed == STATUS


def test_every_setting_is_listed_with_its_default():
    listed = dict(re.findall(r"^\| `(\w+)` \| `([^`]+)` \|", PAGE, re.M))
    assert listed == {field.name: repr(field.default) for field in dataclasses.fields(Settings)}


def test_a_limit_must_be_positive():
    for field in dataclasses.fields(Settings):
        if field.type in (int, float) and field.name != "batch_wait":
            with pytest.raises(ValueError, match=f"{field.name} is 0"):
                Settings(**{field.name: 0})
    with pytest.raises(ValueError, match="batch_wait"):
        Settings(batch_wait=-1)
    with pytest.raises(ValueError, match="truncation is 'always'"):
        Settings(truncation="always")
    for key in ("", "two words", "schlüssel", "line\n"):
        with pytest.raises(ValueError, match="API key"):
            Settings(api_key=key)
    assert "abc" not in repr(Settings(api_key="abc"))


def test_every_file_is_listed():
    files = {path.name for path in Path(__file__).parents[1].glob("*.py")} - {"__init__.py"}
    assert files <= set(re.findall(r"\]\((\w+\.py)\)", PAGE))


def test_the_example_answers(tmp_path, monkeypatch):
    """Run the program of README.md on a free port and send the requests of README.md."""
    (program,) = re.findall(r"```python\n(.*?)```", PAGE, re.S)
    replies = {}

    def serve(load, *, port, settings):
        with listen("127.0.0.1", 0) as listening:
            server = make_server(load, settings)
            thread = threading.Thread(target=server.run, args=([listening],), daemon=True)
            thread.start()
            url = f"http://127.0.0.1:{listening.getsockname()[1]}"
            with httpx.Client(base_url=url, verify=False, trust_env=False, timeout=60) as client:
                while client.get("/health").status_code != 200:
                    pass
                Image.new("RGB", (30, 20)).save(tmp_path / "cat.jpg")
                data = (tmp_path / "cat.jpg").read_bytes()
                replies["caption"] = client.post("/caption", files={"image": data}).json()["caption"]
                form = {"question": "What color is it?"}
                replies["answer"] = client.post("/question", data=form, files={"image": data}).json()["answer"]
                replies["chat"] = client.post("/chat", json={"message": "hello"}).json()["answer"]
            server.should_exit = True
            thread.join(60)

    monkeypatch.setattr("shared.serving.server.serve", serve)
    exec(compile(program, "README.md", "exec"), {})
    assert replies == {
        "caption": "(30 × 20) Describe the image. ",
        "answer": "(30 × 20) What color is it? ",
        "chat": "hello ",
    }
