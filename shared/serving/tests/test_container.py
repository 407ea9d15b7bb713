"""The Dockerfile, as far as it can be tested without building it, and its health check."""

import http.server
import json
import re
import subprocess
import sys
import threading
import tomllib
from pathlib import Path

import pytest

from shared.serving.healthcheck import is_ready

ROOT = Path(__file__).parents[3]
RECIPE = re.sub(r"\\\n\s*", "", (ROOT / "Dockerfile").read_text(encoding="utf-8"))
LINES = [line for line in RECIPE.splitlines() if line and not line.startswith("#")]
LAST_STAGE = LINES[max(n for n, line in enumerate(LINES) if line.startswith("FROM ")) :]


def last(instruction: str) -> str:
    return [line for line in LAST_STAGE if line.startswith(f"{instruction} ")][-1].removeprefix(f"{instruction} ")


def test_the_container_runs_as_an_unprivileged_user():
    user, group = last("USER").split(":")
    assert int(user) > 0 and int(group) > 0
    assert LAST_STAGE.index(f"USER {user}:{group}") > max(
        n for n, line in enumerate(LAST_STAGE) if line.startswith(("RUN", "COPY"))
    )
    assert not [line for line in LAST_STAGE if "--chown" in line]  # the service cannot change its own files


def test_the_started_module_and_the_health_check_exist():
    command = json.loads(last("CMD"))  # without a shell, so that the signal reaches the service
    assert command[:2] == ["python", "-m"]
    assert (ROOT / command[2].replace(".", "/") / "__main__.py").exists()
    _, check = last("HEALTHCHECK").split("CMD ")
    assert (ROOT / json.loads(check)[-1]).exists()
    assert last("EXPOSE") in command


def test_every_copied_file_exists_and_python_is_supported():
    # Only files that .dockerignore admits can be copied.
    admitted = {line[1:] for line in (ROOT / ".dockerignore").read_text().splitlines() if line.startswith("!")}
    copied = [
        word for line in LINES if line.startswith("COPY ") and "--from" not in line for word in line.split()[1:-1]
    ]
    assert copied and set(copied) <= admitted and all((ROOT / name).exists() for name in copied)
    low, high = re.findall(
        r"3\.(\d+)", tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["requires-python"]
    )
    for minor in re.findall(r"FROM python:3\.(\d+)-", RECIPE):
        assert int(low) <= int(minor) < int(high)


@pytest.mark.parametrize("status", [200, 503])
def test_the_health_check_asks_the_service(status):
    class Service(http.server.BaseHTTPRequestHandler):
        def do_GET(self):
            self.send_response(status if self.path == "/health" else 404)
            self.end_headers()

        def log_message(self, *_):
            pass

    with http.server.HTTPServer(("127.0.0.1", 0), Service) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        assert is_ready(f"http://127.0.0.1:{server.server_port}") == (status == 200)
        server.shutdown()


def test_without_a_service_the_health_check_fails():
    script = [sys.executable, "-S", str(ROOT / "shared/serving/healthcheck.py"), "http://127.0.0.1:1"]
    assert subprocess.run(script, capture_output=True).returncode == 1
