"""Downloads against a server on this machine that breaks, lies and refuses as told."""

import contextlib
import hashlib
import http.server
import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from data.datasets import download
from data.datasets.download import LocalFile, RemoteFile, data_folder, find_or_download
from shared.errors import CourseError

CONTENT = bytes(range(256)) * 4096  # 1 MiB
FOLDERS = ("toy_set", "toy-set")


class Server(http.server.ThreadingHTTPServer):
    """Serves CONTENT at every path; notes which ranges were requested; misbehaves as its fields say."""

    def __init__(self):
        super().__init__(("127.0.0.1", 0), Handler)
        self.content, self.ranges, self.cuts, self.serves_ranges, self.missing = CONTENT, [], [], True, False
        self.busy: list[tuple[int, str | None]] = []  # statuses to answer with first, and their Retry-After
        self.redirect = self.length = None  # the address to redirect to; a Content-Length instead of the true one
        self.url = f"http://127.0.0.1:{self.server_port}/file.bin"

    def handle_error(self, request, client_address):
        """A client that was cut off is part of the test."""


class Handler(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        server = self.server
        requested = self.headers.get("Range")
        server.ranges.append(requested)
        if server.missing:
            return self.send_error(404)
        if server.busy:
            status, seconds = server.busy.pop(0)
            self.send_response(status)
            if seconds:
                self.send_header("Retry-After", seconds)
            self.send_header("Content-Length", "0")
            return self.end_headers()
        if server.redirect:
            self.send_response(302)
            self.send_header("Location", server.redirect)
            return self.end_headers()
        start = int(requested.removeprefix("bytes=").removesuffix("-")) if requested and server.serves_ranges else 0
        if start >= len(server.content):
            return self.send_error(416)
        self.send_response(206 if start else 200)
        self.send_header("Content-Length", server.length or str(len(server.content) - start))
        self.end_headers()
        end = start + server.cuts.pop(0) if server.cuts else None
        with contextlib.suppress(ConnectionError):
            self.wfile.write(server.content[start:end])
        self.close_connection = True

    def log_message(self, *args):
        pass


@pytest.fixture
def server(monkeypatch, tmp_path):
    monkeypatch.setenv("MULTIMODAL_DATA", str(tmp_path))
    monkeypatch.delenv("UNVERIFIED", raising=False)
    monkeypatch.setattr(download, "PAUSE", 0.0)
    monkeypatch.setattr(download, "BUSY_PAUSE", 0.0)
    with Server() as running:
        thread = threading.Thread(target=running.serve_forever, args=(0.01,), daemon=True)
        thread.start()
        yield running
        running.shutdown()
        thread.join()


def remote(*urls: str, content: bytes = CONTENT) -> RemoteFile:
    return RemoteFile("file.bin", urls, {"sha256": hashlib.sha256(content).hexdigest()})


def test_a_download_is_cached_and_then_needs_no_network(server, tmp_path):
    file = remote(server.url)
    assert find_or_download(file, FOLDERS) == LocalFile(tmp_path / "toy_set" / "file.bin", verified=True)
    assert find_or_download(file, FOLDERS).path.read_bytes() == CONTENT
    assert server.ranges == [None]
    assert [path.name for path in (tmp_path / "toy_set").iterdir()] == ["file.bin"]


@pytest.mark.parametrize("place", ["toy_set/file.bin", "toy-set/file.bin", "file.bin"])
def test_a_file_that_lies_there_is_used_wherever_it_may_lie(server, tmp_path, place):
    (tmp_path / place).parent.mkdir(exist_ok=True)
    (tmp_path / place).write_bytes(CONTENT)
    assert find_or_download(remote(server.url), FOLDERS) == LocalFile(tmp_path / place, verified=True)
    assert server.ranges == []


def test_a_broken_connection_is_taken_up_where_it_broke(server):
    server.cuts = [300_000, 200_000]
    assert find_or_download(remote(server.url), FOLDERS).path.read_bytes() == CONTENT
    assert server.ranges == [None, "bytes=300000-", "bytes=500000-"]


def test_a_connection_may_break_often_as_long_as_something_comes(server):
    server.cuts = [100_000] * 8
    assert find_or_download(remote(server.url), FOLDERS).path.read_bytes() == CONTENT
    assert len(server.ranges) == 9 > download.ATTEMPTS


def test_a_connection_that_always_breaks_keeps_what_came_for_the_next_run(server, tmp_path):
    server.cuts = [400_000, 0, 0, 0]
    with pytest.raises(CourseError, match=r"cannot download file\.bin"):
        find_or_download(remote(server.url), FOLDERS)
    part = tmp_path / "toy_set" / "file.bin.part"
    assert part.read_bytes() == CONTENT[:400_000]
    assert find_or_download(remote(server.url), FOLDERS).path.read_bytes() == CONTENT
    assert server.ranges[-1] == "bytes=400000-" and not part.exists()


def test_a_server_without_ranges_sends_it_all_again(server):
    server.cuts, server.serves_ranges = [300_000], False
    assert find_or_download(remote(server.url), FOLDERS).path.read_bytes() == CONTENT


def test_a_part_of_another_version_is_fetched_anew(server, tmp_path):
    part = tmp_path / "toy_set" / "file.bin.part"
    part.parent.mkdir()
    part.write_bytes(b"old" * 1000)
    assert find_or_download(remote(server.url), FOLDERS) == LocalFile(part.with_suffix(""), verified=True)
    assert server.ranges == ["bytes=3000-", None]


def test_a_whole_part_only_gets_its_name(server, tmp_path):
    part = tmp_path / "toy_set" / "file.bin.part"
    part.parent.mkdir()
    part.write_bytes(CONTENT)
    assert find_or_download(remote(server.url), FOLDERS).verified
    assert server.ranges == [f"bytes={len(CONTENT)}-"]


def test_a_wrong_checksum_is_refused_and_nothing_wrong_is_kept(server, tmp_path):
    server.content = CONTENT[:-1] + b"?"
    with pytest.raises(CourseError, match=r"sha256 is \w+, the official one is"):
        find_or_download(remote(server.url), FOLDERS)
    assert list((tmp_path / "toy_set").iterdir()) == []


def test_a_wrong_checksum_is_taken_with_unverified_and_said(server, monkeypatch):
    server.content = b"something else"
    monkeypatch.setenv("UNVERIFIED", "1")
    assert not find_or_download(remote(server.url), FOLDERS).verified
    assert not find_or_download(remote(server.url), FOLDERS).verified, "the second time from the cache"
    monkeypatch.setenv("UNVERIFIED", "0")
    with pytest.raises(CourseError, match="UNVERIFIED=1"):
        find_or_download(remote(server.url), FOLDERS)


def test_every_checksum_must_hold(server):
    md5 = hashlib.md5(CONTENT).hexdigest()
    file = RemoteFile("file.bin", (server.url,), {"md5": md5, "sha256": "0" * 64})
    with pytest.raises(CourseError, match="sha256"):
        find_or_download(file, FOLDERS)


def test_the_second_address_serves_when_the_first_does_not(server):
    unreachable = "http://127.0.0.1:9/file.bin"  # the discard port: refused at once
    assert find_or_download(remote(unreachable, server.url), FOLDERS).verified


def test_a_missing_file_names_each_address(server, tmp_path):
    server.missing = True
    with pytest.raises(CourseError) as caught:
        find_or_download(remote(server.url), FOLDERS)
    assert server.url in str(caught.value) and "404" in str(caught.value)
    assert list((tmp_path / "toy_set").iterdir()) == []


def test_no_network_says_which_file_to_put_where(monkeypatch, tmp_path):
    monkeypatch.setenv("MULTIMODAL_DATA", str(tmp_path))
    with pytest.raises(CourseError) as caught:
        find_or_download(remote("http://127.0.0.1:9/file.bin"), FOLDERS)
    assert f"put it at {tmp_path / 'toy_set' / 'file.bin'}" in str(caught.value)


def test_a_data_folder_that_is_none_is_an_error(monkeypatch, tmp_path):
    monkeypatch.setenv("MULTIMODAL_DATA", str(tmp_path / "nowhere"))
    with pytest.raises(CourseError, match="nowhere is not a folder"):
        data_folder()
    monkeypatch.delenv("MULTIMODAL_DATA")
    assert data_folder() == download.CACHE


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="only Linux has a device that is always full")
def test_a_full_disk_says_so_and_keeps_the_part(server, tmp_path):
    part = tmp_path / "toy_set" / "file.bin.part"
    part.parent.mkdir()
    part.symlink_to("/dev/full")
    with pytest.raises(CourseError, match="disk is full"):
        find_or_download(remote(server.url), FOLDERS)


def test_a_place_that_cannot_be_written_to_is_named(server, tmp_path):
    (tmp_path / "toy_set").write_text("a file where the folder should be")
    with pytest.raises(CourseError, match="cannot write"):
        find_or_download(remote(server.url), FOLDERS)


def test_two_that_want_the_same_file_share_one_download(server):
    server.cuts = [500_000]
    with ThreadPoolExecutor(2) as pool:
        results = list(pool.map(find_or_download, [remote(server.url)] * 2, [FOLDERS] * 2))
    assert all(result.verified for result in results)
    assert server.ranges == [None, "bytes=500000-"]


def test_a_slow_download_shows_a_bar_a_quick_one_does_not(server, monkeypatch, capsys):
    find_or_download(remote(server.url), FOLDERS)
    assert capsys.readouterr() == ("", "")
    monkeypatch.setattr(download, "DISPLAY_DELAY", 0.0)
    monkeypatch.setenv("FORCE_COLOR", "1")  # as on a terminal
    started = []
    monkeypatch.setattr(download.Progress, "start", lambda self: started.append(self.tasks[0].total))
    find_or_download(RemoteFile("other.bin", (server.url,), {}), FOLDERS)
    assert started and started[0] == len(CONTENT)


def test_without_a_terminal_a_slow_download_is_one_line(server, monkeypatch, capsys):
    monkeypatch.setattr(download, "DISPLAY_DELAY", 0.0)
    server.cuts = [300_000]
    find_or_download(remote(server.url), FOLDERS)
    output = capsys.readouterr()
    assert output.out == "" and set(output.err.splitlines()) == {"downloading file.bin (1.0 MB) …"}


@pytest.mark.parametrize("status", [429, 503])
def test_a_busy_server_is_asked_again_later(server, monkeypatch, status):
    pauses = []
    monkeypatch.setattr(download, "BUSY_PAUSE", 2.0)
    monkeypatch.setattr(download.time, "sleep", pauses.append)
    server.busy = [(status, None), (status, "7")]
    assert find_or_download(remote(server.url), FOLDERS).verified
    assert pauses == [2.0, 7.0]
    server.busy = [(status, None), (status, "Fri, 01 Jan 2100 00:00:00 GMT"), (status, "100000")]
    with pytest.raises(CourseError, match=str(status)):
        find_or_download(RemoteFile("other.bin", (server.url,), {}), FOLDERS)
    assert pauses == [2.0, 7.0, 2.0, 4.0] and len(server.ranges) == 6


@pytest.mark.parametrize("length", ["many", "-5", "²", "1e3"])
def test_a_length_that_is_no_number_counts_as_unknown(server, length):
    server.length = length.encode().decode("latin-1")
    assert find_or_download(remote(server.url), FOLDERS).path.read_bytes() == CONTENT


@pytest.mark.parametrize("length", ["5", "99999999"])
def test_a_wrong_length_is_an_error_unless_the_file_is_complete(server, length):
    server.length = length
    if length == "5":
        with pytest.raises(CourseError, match="sha256"):
            find_or_download(remote(server.url), FOLDERS)
    else:
        assert find_or_download(remote(server.url), FOLDERS).verified


@pytest.mark.parametrize(
    "address", ["http://[::1", "http://host:port/", f"http://{'a' * 70}.example/", "file:///etc/hosts"]
)
def test_a_redirection_to_no_address_is_one_error(server, tmp_path, address):
    server.redirect = address
    with pytest.raises(CourseError, match=r"cannot download file\.bin"):
        find_or_download(remote(server.url), FOLDERS)
    assert list((tmp_path / "toy_set").iterdir()) == []


@pytest.mark.parametrize("place", ["toy_set/file.bin", "file.bin", "toy_set/file.bin.part"])
def test_a_folder_in_the_files_place_is_named(server, tmp_path, place):
    (tmp_path / place).mkdir(parents=True)
    with pytest.raises(CourseError, match=r"file\.bin"):
        find_or_download(remote(server.url), FOLDERS)
    assert (tmp_path / place).is_dir()
