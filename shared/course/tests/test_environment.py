"""Setting up: once, and by one at a time."""

import threading
import time

import pytest

from shared.course import environment


@pytest.fixture
def built(tmp_path, monkeypatch):
    """Set-ups of a folder that install nothing; returns what each has done."""
    times = []

    def build():
        times.append("begins")
        environment.STAMP.write_text(environment.fingerprint())
        times.append("ends")

    for name in environment.PINS:
        (tmp_path / name).write_text("")
    monkeypatch.setattr(environment, "ROOT", tmp_path)
    monkeypatch.setattr(environment, "STAMP", tmp_path / "ready")
    monkeypatch.setattr(environment, "build", build)
    return times


def test_a_set_up_waits_for_another_and_finds_it_done(built, capsys):
    waiting, said = threading.Thread(target=environment.main), ""
    with environment.alone():
        waiting.start()
        while "another make is setting up the course" not in said:
            said += capsys.readouterr().err
            time.sleep(0.01)
        assert not built
        environment.build()
    waiting.join()
    assert built == ["begins", "ends"]


def test_changed_pins_set_up_again(built):
    environment.main()
    environment.main()
    assert built == ["begins", "ends"]
    (environment.ROOT / environment.PINS[0]).write_text("another")
    environment.main()
    assert built == ["begins", "ends"] * 2
