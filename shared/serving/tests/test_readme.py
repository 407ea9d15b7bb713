"""What README.md says is so."""

import dataclasses
import re
import threading
from pathlib import Path

import httpx
import pytest
from PIL import Image

from shared.serving import Settings
from shared.serving.problems import STATUS
from shared.serving.serve import listen, make_server

PAGE = (Path(__file__).parents[1] / "README.md").read_text(encoding="utf-8")


def test_every_problem_is_told():
    told = {code: int(status) for status, code in re.findall(r"^\| (\d{3}) \| `(\w+)` \|", PAGE, re.M)}
    assert told == STATUS


def test_every_setting_is_told_with_its_default():
    told = dict(re.findall(r"^\| `(\w+)` \| `([^`]+)` \|", PAGE, re.M))
    assert told == {field.name: repr(field.default) for field in dataclasses.fields(Settings)}


def test_a_limit_of_nothing_is_no_limit():
    for field in dataclasses.fields(Settings):
        if field.name not in ("caption_prompt", "gather_seconds"):
            with pytest.raises(ValueError, match=f"{field.name} is 0"):
                Settings(**{field.name: 0})
    with pytest.raises(ValueError, match="gather_seconds"):
        Settings(gather_seconds=-1)


def test_every_room_is_on_the_page():
    rooms = {path.name for path in Path(__file__).parents[1].glob("*.py")} - {"__init__.py"}
    assert rooms - {"description.py", "healthcheck.py"} <= set(re.findall(r"\]\((\w+\.py)\)", PAGE))


def test_the_example_answers(tmp_path, monkeypatch):
    """The page's own program, with a free port in place of its own, asked as the page asks it."""
    (program,) = re.findall(r"```python\n(.*?)```", PAGE, re.S)
    heard = {}

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
                picture = (tmp_path / "cat.jpg").read_bytes()
                heard["caption"] = client.post("/caption", files={"image": picture}).json()["caption"]
                form = {"question": "What colour is it?"}
                heard["answer"] = client.post("/question", data=form, files={"image": picture}).json()["answer"]
                heard["chat"] = client.post("/chat", json={"message": "hello"}).json()["answer"]
            server.should_exit = True
            thread.join(60)

    monkeypatch.setattr("shared.serving.serve", serve)
    exec(compile(program, "README.md", "exec"), {})
    assert heard == {
        "caption": "(30 × 20) Describe the image. ",
        "answer": "(30 × 20) What colour is it? ",
        "chat": "hello ",
    }
