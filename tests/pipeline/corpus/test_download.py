import email.utils
import errno
import gzip
import hashlib
import http.server
import lzma
import threading
import urllib.request

import pytest

from model.system.errors import UserError
from model.system.locks import holding
from pipeline import tasks
from pipeline.corpus import archives
from pipeline.corpus import download as module
from pipeline.corpus.archives import take_text, unpack
from pipeline.corpus.download import download
from tests.jobs import Job, reset_settings
from tests.pipeline.corpus.test_archives import (
    LEIPZIG,
    SENTENCES,
    entry,
    files_below,
    make_archive,
)

CONTENT = bytes(range(256)) * 4000  # 1,024,000 bytes, so that a cut falls between blocks


class Server:
    """An HTTP server on the loopback address that answers as each test needs.

    Attributes
    ----------
    content, etag, modified : what it serves
    cuts : bytes of the body after which each coming connection is cut; none: the body is whole
    statuses : answers to give instead, before anything else
    ranges : whether it sends parts
    declares_length : whether it tells the length
    requests : the Range and If-Range headers received
    """

    def __init__(self):
        self.content, self.etag, self.modified = CONTENT, '"one"', None
        self.cuts, self.statuses, self.requests = [], [], []
        self.ranges = self.declares_length = True
        self.wrong_range = False
        outer = self

        class Handler(http.server.BaseHTTPRequestHandler):
            def do_GET(self):
                outer.answer(self)

            def log_message(self, *_):
                pass

        self.http = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self.http.server_port}/corpus.tar.gz"

    def answer(self, handler):
        wanted = handler.headers.get("Range"), handler.headers.get("If-Range")
        self.requests.append(wanted)
        if self.statuses:
            handler.send_response(self.statuses.pop(0))
            handler.send_header("Content-Length", "0")
            handler.end_headers()
            return
        start = 0
        current = self.etag or self.modified
        if self.ranges and wanted[0] and wanted[1] in (None, current):
            start = int(wanted[0].removeprefix("bytes=").removesuffix("-"))
            if start >= len(self.content):
                handler.send_error(416)
                return
            handler.send_response(206)
            first = start - 1 if self.wrong_range else start
            handler.send_header(
                "Content-Range", f"bytes {first}-{len(self.content) - 1}/{len(self.content)}")
        else:
            handler.send_response(200)
        if self.etag:
            handler.send_header("ETag", self.etag)
        if self.modified:
            handler.send_header("Last-Modified", self.modified)
        if self.declares_length:
            handler.send_header("Content-Length", str(len(self.content) - start))
        handler.end_headers()
        body = self.content[start:]
        handler.wfile.write(body[: self.cuts.pop(0)] if self.cuts else body)


@pytest.fixture
def server(monkeypatch):
    monkeypatch.setenv("no_proxy", "127.0.0.1")
    server = Server()
    thread = threading.Thread(target=server.http.serve_forever, args=(0.01,))
    thread.start()
    yield server
    server.http.shutdown()
    thread.join()
    server.http.server_close()


@pytest.fixture
def fetch(server, tmp_path):
    def fetch(**options):
        return download(server.url, tmp_path / "in" / "corpus.tar.gz", pause=0.001, **options)

    return fetch


def test_fetches_and_verifies(server, fetch, tmp_path):
    seen = []
    path = fetch(size=len(CONTENT), sha256=hashlib.sha256(CONTENT).hexdigest().upper(),
                 progress=lambda done, total: seen.append((done, total)))
    assert path.read_bytes() == CONTENT
    assert seen[-1] == (len(CONTENT), len(CONTENT)) and seen == sorted(seen)
    assert files_below(tmp_path) == ["in/corpus.tar.gz"]
    assert server.requests == [(None, None)]


def test_goes_on_after_each_cut(server, fetch):
    server.cuts = [300_000, 200_001, 0, 7]
    assert fetch().read_bytes() == CONTENT
    assert server.requests == [
        (None, None), ("bytes=300000-", '"one"'), ("bytes=500001-", '"one"'),
        ("bytes=500001-", '"one"'), ("bytes=500008-", '"one"')]


def test_an_attempt_that_brings_much_is_not_counted(server, fetch, monkeypatch):
    monkeypatch.setattr(module, "_WORTH_AN_ATTEMPT", 100_000)
    server.cuts = [99_999, 100_000] * 4
    assert fetch(attempts=3).read_bytes() == CONTENT
    assert len(server.requests) == 9


def test_goes_on_in_a_later_run(server, fetch, tmp_path):
    server.cuts = [300_000, 1]
    with pytest.raises(UserError, match="2 attempts.*300001 of 1024000.*300001 bytes .* are kept"):
        fetch(attempts=2)
    assert not (tmp_path / "in" / "corpus.tar.gz").exists()
    assert fetch().read_bytes() == CONTENT
    assert server.requests[-1] == ("bytes=300001-", '"one"')


def test_a_killed_process_loses_at_most_the_last_blocks(server, tmp_path, monkeypatch):
    class Killed(BaseException):
        pass

    def kill(done, total):
        if done > 500_000:
            raise Killed

    target = tmp_path / "corpus.tar.gz"
    with pytest.raises(Killed):
        download(server.url, target, progress=kill)
    assert download(server.url, target).read_bytes() == CONTENT
    start = int(server.requests[-1][0].removeprefix("bytes=").removesuffix("-"))
    assert start > 500_000


def test_waits_longer_after_each_failure(server, fetch, monkeypatch):
    waits = []
    monkeypatch.setattr(module.time, "sleep", waits.append)
    server.statuses = [503, 500, 429, 502]
    assert fetch().read_bytes() == CONTENT
    assert waits == [0.001, 0.002, 0.004, 0.008]


def test_gives_up_after_the_bound(server, fetch, tmp_path):
    server.statuses = [503] * 10
    with pytest.raises(UserError, match="not fetched in 3 attempts.*503"):
        fetch(attempts=3)
    assert len(server.requests) == 3
    assert files_below(tmp_path) == []


def test_a_refusal_is_not_tried_again(server, fetch, tmp_path):
    server.statuses = [404]
    with pytest.raises(UserError, match="corpus.tar.gz: the server answers 404 Not Found"):
        fetch()
    assert len(server.requests) == 1
    assert files_below(tmp_path) == []


def test_starts_anew_where_the_server_sends_no_parts(server, fetch):
    server.ranges = False
    server.cuts = [300_000, 600_000]
    assert fetch().read_bytes() == CONTENT
    assert len(server.requests) == 3


@pytest.mark.parametrize("declares_length", [True, False])
def test_starts_anew_where_the_file_has_changed(server, fetch, declares_length):
    server.cuts = [300_000]
    with pytest.raises(UserError):
        fetch(attempts=1)
    server.content, server.etag = CONTENT[::-1][:900_000], '"two"'
    server.declares_length = declares_length
    assert fetch().read_bytes() == server.content


def test_no_part_is_continued_for_another_address(server, tmp_path):
    target = tmp_path / "corpus.tar.gz"
    server.cuts = [300_000]
    with pytest.raises(UserError):
        download(server.url, target, attempts=1)
    download(server.url + "?other", target)
    assert server.requests[-1] == (None, None)


@pytest.mark.parametrize(("etag", "age", "resumes"), [
    ('W/"weak"', None, False),
    ('W/"weak"', 3600, False),  # a date may stand in only where there is no tag
    (None, 3600, True),
    (None, 0, False),
    (None, None, False),
])
def test_only_a_strong_validator_is_relied_on(server, fetch, etag, age, resumes):
    server.etag = etag
    if age is not None:
        now = email.utils.localtime().timestamp()
        server.modified = email.utils.formatdate(now - age + (0 if age else 5), usegmt=True)
    server.cuts = [300_000]
    assert fetch().read_bytes() == CONTENT
    expected = ("bytes=300000-", server.modified) if resumes else (None, None)
    assert server.requests[1] == expected


def test_a_part_that_does_not_fit_is_dropped(server, fetch):
    server.cuts = [300_000]
    server.wrong_range = True
    assert fetch().read_bytes() == CONTENT
    assert [start for start, _ in server.requests] == [None, "bytes=300000-", None]


def test_a_part_longer_than_the_file_is_dropped(server, fetch, tmp_path):
    server.declares_length = False
    server.cuts = [300_000]
    fetch()  # without a length, a cut looks like the end
    (tmp_path / "in" / "corpus.tar.gz").rename(tmp_path / "in" / ".corpus.tar.gz.part")
    (tmp_path / "in" / ".corpus.tar.gz.part.json").write_text(
        f'{{"url": "{server.url}", "validator": "\\"one\\"", "total": null}}')
    server.content = CONTENT[:300_000]
    assert fetch().read_bytes() == server.content
    assert [start for start, _ in server.requests[1:]] == ["bytes=300000-", None]


@pytest.mark.parametrize("note", ["", "{", '{"url": "http://elsewhere/"}', None])
def test_a_part_without_an_intact_note_is_dropped(server, fetch, tmp_path, note):
    (tmp_path / "in").mkdir()
    (tmp_path / "in" / ".corpus.tar.gz.part").write_bytes(b"something else")
    if note is not None:
        (tmp_path / "in" / ".corpus.tar.gz.part.json").write_text(note)
    assert fetch().read_bytes() == CONTENT
    assert server.requests == [(None, None)]


def test_a_damaged_part_costs_one_more_attempt(server, fetch, tmp_path):
    digest = hashlib.sha256(CONTENT).hexdigest()
    server.cuts = [300_000]
    with pytest.raises(UserError):
        fetch(attempts=1, sha256=digest)
    with open(tmp_path / "in" / ".corpus.tar.gz.part", "r+b") as part:
        part.write(b"damaged")
    assert fetch(sha256=digest).read_bytes() == CONTENT


@pytest.mark.parametrize("declares_length", [True, False])
@pytest.mark.parametrize("size", [len(CONTENT) - 1, len(CONTENT) + 1])
def test_wrong_size(server, fetch, tmp_path, size, declares_length):
    server.declares_length = declares_length
    with pytest.raises(UserError, match=f"expected.*{size}|{size}.*expected"):
        fetch(size=size)
    assert len(server.requests) == 1
    assert files_below(tmp_path) == []


def test_wrong_digest(server, fetch, tmp_path):
    with pytest.raises(UserError, match="corpus.tar.gz.*SHA-256 is .*00000 is expected"):
        fetch(sha256="0" * 64)
    assert len(server.requests) == 1
    assert files_below(tmp_path) == []


def test_what_was_there_before_stays_on_failure(server, fetch, tmp_path):
    target = tmp_path / "in" / "corpus.tar.gz"
    target.parent.mkdir()
    target.write_text("before")
    server.statuses = [404]
    with pytest.raises(UserError):
        fetch()
    assert target.read_text() == "before"


def test_no_server(tmp_path):
    with http.server.HTTPServer(("127.0.0.1", 0), http.server.BaseHTTPRequestHandler) as free:
        port = free.server_port
    with pytest.raises(UserError, match="2 attempts.*no connection.*starts from the beginning"):
        download(f"http://127.0.0.1:{port}/x", tmp_path / "x", attempts=2, pause=0.001)


def test_a_silent_server_counts_as_a_failure(server, fetch, monkeypatch):
    hold = threading.Event()
    monkeypatch.setattr(server, "answer", lambda handler: hold.wait(10))
    try:
        with pytest.raises(UserError, match="timed out|TimeoutError"):
            fetch(attempts=1, timeout=0.05)
    finally:
        hold.set()


@pytest.mark.parametrize("url", [
    "file:///etc/passwd", "ftp://127.0.0.1/x", "corpus.tar.gz", "http://", "http://host:port/x",
    "http://127.0.0.1/a b", "http://127.0.0.1/\r\nX: y"])
def test_only_addresses_of_the_web(tmp_path, url):
    with pytest.raises(UserError, match="is not an http or https address"):
        download(url, tmp_path / "x")


def test_two_processes_do_not_write_one_file(server, fetch, tmp_path):
    (tmp_path / "in").mkdir()
    with (holding(tmp_path / "in" / ".corpus.tar.gz.part.locked-by", print),
          pytest.raises(UserError, match="another process .* is fetching it")):
        fetch()


def test_a_disk_that_takes_nothing(server, tmp_path, monkeypatch):
    def full(self, block):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(module._Part, "append", full)
    with pytest.raises(UserError, match="cannot write .*corpus.tar.gz: .*No space left"):
        download(server.url, tmp_path / "corpus.tar.gz")
    assert files_below(tmp_path) == []


def test_a_folder_that_cannot_be_made(server, tmp_path):
    (tmp_path / "in").write_text("a file")
    with pytest.raises(UserError, match="cannot write"):
        download(server.url, tmp_path / "in" / "corpus.tar.gz")


@pytest.mark.parametrize("location", ["ftp://127.0.0.1:1/x", "FTP://127.0.0.1:1/x"])
def test_a_redirect_to_ftp_is_not_followed(server, fetch, monkeypatch, tmp_path, location):
    redirect(server, monkeypatch, location)
    with pytest.raises(UserError, match="corpus.tar.gz: the server sends on to (?i:ftp):"):
        fetch()
    assert files_below(tmp_path) == []


def test_a_redirect_to_a_file_is_not_followed(server, fetch, monkeypatch, tmp_path):
    redirect(server, monkeypatch, "file:///etc/passwd")
    with pytest.raises(UserError, match="the server answers 302"):
        fetch()
    assert files_below(tmp_path) == []


def redirect(server, monkeypatch, location):
    def answer(handler):
        if handler.path == "/corpus.tar.gz":
            handler.send_response(302)
            handler.send_header("Location", location)
            handler.end_headers()
        else:
            Server.answer(server, handler)

    monkeypatch.setattr(server, "answer", answer)


def test_a_redirect_as_safe_as_the_address_is_followed(server, fetch, monkeypatch):
    redirect(server, monkeypatch, "/elsewhere")
    assert fetch().read_bytes() == CONTENT


@pytest.mark.parametrize(("first", "second", "followed"), [
    ("http", "http", True), ("http", "https", True), ("https", "https", True),
    ("https", "http", False), ("HTTPS", "HTTP", False), ("https", "ftp", False)])
def test_no_redirect_leads_from_https_to_what_anybody_can_change(first, second, followed):
    request = urllib.request.Request(f"{first}://one.example/a")
    arguments = None, 302, "Found", {}, f"{second}://two.example/b"
    if followed:
        assert module._Redirects().redirect_request(request, *arguments).host == "two.example"
    else:
        with pytest.raises(UserError, match="which is not followed"):
            module._Redirects().redirect_request(request, *arguments)


@pytest.mark.parametrize("declares_length", [True, False])
def test_a_download_is_bounded(server, fetch, tmp_path, declares_length):
    server.declares_length = declares_length
    with pytest.raises(UserError, match=r"bytes.*, more than the 1,023,999 that \[download\] max"):
        fetch(max_bytes=len(CONTENT) - 1)
    assert files_below(tmp_path) == []
    assert fetch(max_bytes=len(CONTENT)).read_bytes() == CONTENT


def test_a_size_that_is_given_goes_before_the_bound(server, fetch):
    assert fetch(size=len(CONTENT), max_bytes=1).read_bytes() == CONTENT


# --- what is fetched, unpacked


def test_downloads_and_unpacks(server, fetch, tmp_path):
    server.content = make_archive(tmp_path / "a.tar.gz", *LEIPZIG).read_bytes()
    server.cuts = [100]
    [path] = unpack(fetch(), tmp_path / "out")
    assert path.read_bytes() == SENTENCES


@pytest.fixture
def job(tmp_path):
    yield Job(tmp_path / "job")
    reset_settings()


def corpus_task(job, url):
    job.set("corpus", path=url)
    return job.root(tasks.SplitCorpus)


def test_the_task_fetches_the_corpus_through_cut_connections(server, job, tmp_path, monkeypatch):
    lines = b"".join(b"%d\t%s\n" % (n, line.encode()) for n, line in enumerate(job.lines, 1))
    server.content = make_archive(
        tmp_path / "a.tar.gz", entry("eng/a-sentences.txt", lines)).read_bytes()
    server.cuts = [1000, 2000]
    monkeypatch.setattr("pipeline.corpus.download.time.sleep", lambda _: None)
    corpus_task(job, server.url)
    made = job.build(tasks.SplitCorpus)
    assert made.keys() >= {"DownloadCorpus", "SplitCorpus"}
    assert [request[0] for request in server.requests] == [None, "bytes=1000-", "bytes=3000-"]
    assert job.root(tasks.SplitCorpus).manifest().sentences("train") == len(job.lines)
    assert not list(job.work.rglob("fetched*")), "the archive is of no use any more"
    assert job.build(tasks.SplitCorpus) == {} and len(server.requests) == 3


@pytest.mark.parametrize(("name", "pack"), [
    ("corpus.txt", bytes), ("corpus.txt.gz", gzip.compress), ("corpus.xz", lzma.compress),
    ("get?format=", gzip.compress)])
def test_the_task_fetches_a_text(server, job, name, pack):
    server.content = pack("".join(f"{line}\n" for line in job.lines).encode())
    corpus_task(job, server.url.replace("http", "HTTP").replace("corpus.tar.gz", name))
    job.build(tasks.SplitCorpus)
    assert job.root(tasks.SplitCorpus).manifest().sentences("train") == len(job.lines)
    assert not list(job.work.rglob("fetched*")), "what was fetched is of no use any more"
    assert job.build(tasks.SplitCorpus) == {} and len(server.requests) == 1


@pytest.mark.parametrize(("content", "message"), [
    (b"\n<!DOCTYPE html>\n<title>Not here</title>", "is a web page: give the address of the text"),
    (gzip.compress(b"one\n" * 10_000, mtime=0)[:-9], "is truncated"),
    (b"PK\x03\x04....", "is a zip archive: unpack it"),
])
def test_the_task_refuses_what_is_no_text(server, job, content, message):
    server.content = content
    corpus_task(job, server.url.replace("corpus.tar.gz", "text"))
    with pytest.raises(UserError, match=f"/text {message}"):
        job.build(tasks.SplitCorpus)
    assert not [path for path in job.work.rglob("*") if path.parent.parent.name == "download"]


def test_the_task_bounds_a_text(tmp_path):
    (tmp_path / "fetched").write_bytes(gzip.compress(b"word\n" * 1_000_000))
    with pytest.raises(UserError, match="^its address is a text of more than 1,000,000 bytes"):
        take_text(tmp_path / "fetched", tmp_path / "text", "its address",
                         max_bytes=1_000_000)
    assert files_below(tmp_path) == ["fetched"]


def test_the_bound_is_a_setting_and_no_ingredient(server, job):
    server.content = b"one\n" * 100
    job.set("download", max_bytes=399)
    corpus_task(job, server.url.replace("corpus.tar.gz", "corpus.txt"))
    with pytest.raises(UserError, match="400 bytes, more than the 399"):
        job.build(tasks.SplitCorpus)
    job.set("download", max_bytes=400)
    job.build(tasks.SplitCorpus)
    job.set("download", max_bytes=0)
    assert job.build(tasks.SplitCorpus) == {}


def test_the_task_goes_on_with_an_archive_that_has_arrived(server, job, tmp_path, monkeypatch):
    server.content = make_archive(tmp_path / "a.tar.gz", *LEIPZIG).read_bytes()
    corpus_task(job, server.url)
    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(module, "unpack", interrupt)
        job.build(tasks.SplitCorpus)
    job.build(tasks.SplitCorpus)
    assert len(server.requests) == 1


def interrupt(*_, **__):
    raise KeyboardInterrupt


def test_the_task_fetches_a_damaged_archive_again(server, job, tmp_path):
    whole = make_archive(tmp_path / "a.tar.gz", *LEIPZIG).read_bytes()
    server.content = whole[:-20]
    corpus_task(job, server.url)
    with pytest.raises(UserError, match="is damaged .*fetches it again"):
        job.build(tasks.SplitCorpus)
    server.content = whole
    job.build(tasks.SplitCorpus)
    assert len(server.requests) == 2


def test_the_task_keeps_an_archive_when_the_disk_is_full(server, job, tmp_path, monkeypatch):
    server.content = make_archive(tmp_path / "a.tar.gz", *LEIPZIG).read_bytes()
    corpus_task(job, server.url)

    def full(*_):
        raise OSError(errno.ENOSPC, "No space left on device")

    with monkeypatch.context() as patch, pytest.raises(UserError, match="No space left"):
        patch.setattr(archives.shutil, "copyfileobj", full)
        job.build(tasks.SplitCorpus)
    job.build(tasks.SplitCorpus)
    assert len(server.requests) == 1


def test_the_task_fetches_an_archive_of_two_texts_again(server, job, tmp_path):
    corpus_task(job, server.url)
    second = entry("eng_1K/two-sentences.txt", SENTENCES)
    server.content = make_archive(tmp_path / "a.tar.gz", *LEIPZIG, second).read_bytes()
    with pytest.raises(UserError, match="holds 2 files of sentences"):
        job.build(tasks.SplitCorpus)
    server.content = make_archive(tmp_path / "b.tar.gz", *LEIPZIG).read_bytes()
    job.build(tasks.SplitCorpus)
    assert len(server.requests) == 2
