"""The environment is set up once, and by one process at a time."""

import threading
import time

import pytest

from shared.course import environment


@pytest.fixture
def built(tmp_path, monkeypatch):
    """Replace the set-up by one that installs nothing; return the list of its events."""
    events = []

    def build():
        events.append("begin")
        environment.STAMP.write_text(environment.fingerprint())
        events.append("end")

    for name in environment.PINS:
        (tmp_path / name).write_text("")
    monkeypatch.setattr(environment, "ROOT", tmp_path)
    monkeypatch.setattr(environment, "STAMP", tmp_path / "ready")
    monkeypatch.setattr(environment, "build", build)
    return events


def test_a_set_up_waits_for_another_and_does_not_repeat_it(built, capsys):
    waiting, message = threading.Thread(target=environment.main), ""
    with environment.setup_lock():
        waiting.start()
        while "another make is setting up the course" not in message:
            message += capsys.readouterr().err
            time.sleep(0.01)
        assert not built
        environment.build()
    waiting.join()
    assert built == ["begin", "end"]


def test_changed_pins_are_set_up_again(built):
    environment.main()
    environment.main()
    assert built == ["begin", "end"]
    (environment.ROOT / environment.PINS[0]).write_text("another")
    environment.main()
    assert built == ["begin", "end"] * 2
