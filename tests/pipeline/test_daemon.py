"""Luigi's daemon, and what else may answer on its port."""

import contextlib
import http.server
import json
import logging
import os
import socket
import sys
import threading

import luigi.cmdline
import pytest
from luigi.rpc import RPCError

from model.system.errors import UserError
from pipeline import daemon
from tests.jobs import Job, free_port


@contextlib.contextmanager
def listening(speak):
    """A program on a port of its own; `speak` gets each connection, and what was asked."""
    with socket.create_server((daemon.ADDRESS, 0)) as server:
        done = threading.Event()

        def serve():
            with contextlib.suppress(OSError):
                while True:
                    connection, _ = server.accept()
                    threading.Thread(target=answer, args=(connection,), daemon=True).start()

        def answer(connection):
            with connection, contextlib.suppress(OSError):
                speak(connection, done)

        threading.Thread(target=serve, daemon=True).start()
        try:
            yield server.getsockname()[1]
        finally:
            done.set()
            server.shutdown(socket.SHUT_RDWR)


def says(content):
    def speak(connection, _):
        connection.recv(4096)
        connection.sendall(content)
    return speak


def page(body, length=None):
    return says(b"HTTP/1.0 200 OK\r\nContent-Length: %d\r\n\r\n%s" % (length or len(body), body))


def trickle(connection, done):
    connection.sendall(b"HTTP/1.0 200 OK\r\n")
    while not done.wait(0.05):
        connection.sendall(b"X")


STRANGERS = {
    "banner": lambda connection, _: connection.sendall(b"SSH-2.0-OpenSSH_9.2\r\n"),
    "page": page(b"<html>Welcome</html>"),
    "list": page(b"[]"),
    "null": page(b'{"response": null}'),
    "number": page(b'{"response": {"paused": 3}}'),
    "deep": page(b"[" * 60_000),
    "no text": page(b"\xff\xfe\x00"),
    "half": page(b'{"response": {"pau', 100),
    "error": says(b"HTTP/1.0 500 No\r\n\r\n"),
    "hangs up": lambda connection, _: None,
    "silent": lambda _, done: done.wait(60),
    "trickle": trickle,
}


@pytest.mark.parametrize("stranger", STRANGERS)
def test_another_program_on_the_port(stranger, tmp_path, monkeypatch):
    monkeypatch.setattr(daemon, "_SECONDS_TO_ANSWER", 0.5)
    with listening(STRANGERS[stranger]) as port:
        assert not daemon.answers(port)
        with pytest.raises(UserError, match=f"listens on 127.0.0.1:{port} does not answer as"):
            daemon.start(tmp_path, port)
        assert daemon.stop(tmp_path, port) == "no daemon is running"
    assert not (tmp_path / "luigid").exists()


def test_a_garbled_process_number_is_none(tmp_path):
    (tmp_path / "luigid").mkdir()
    (tmp_path / "luigid" / "pid").write_text("12\0x")
    assert daemon.stop(tmp_path, free_port()) == "no daemon is running"


def test_the_log_of_the_daemon_is_bounded(tmp_path, monkeypatch):
    def luigid(arguments):
        for number in range(1000):
            logging.getLogger("luigi.server").warning("message %d", number)

    monkeypatch.setattr(daemon, "_LOG_BYTES", 10_000)
    monkeypatch.setattr(luigi.cmdline, "luigid", luigid)
    monkeypatch.setattr(logging.getLogger(), "handlers", [])
    monkeypatch.setattr(sys, "argv", ["luigid", "--state-path", str(tmp_path / "state.pickle")])
    daemon.be_luigid()
    assert "message 999" in (tmp_path / "luigid.log").read_text()
    assert sum(path.stat().st_size for path in tmp_path.glob("luigid.log*")) <= 20_000


@contextlib.contextmanager
def impostor(answers):
    """A program that answers whether it is paused, and anything else as `answers` says."""
    class Handler(http.server.BaseHTTPRequestHandler):
        def do_POST(self):
            self.rfile.read(int(self.headers.get("Content-Length", 0)))
            method = self.path.rpartition("/")[2]
            content = {"is_paused": {"response": {"paused": False}}, **answers}.get(method)
            if content is None:
                self.send_error(404)
                return
            self.send_response(200)
            self.end_headers()
            self.wfile.write(json.dumps(content).encode())

        do_GET = do_POST

        def log_message(self, *_):
            pass

    with http.server.ThreadingHTTPServer((daemon.ADDRESS, 0), Handler) as server:
        threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True).start()
        try:
            yield server.server_port
        finally:
            server.shutdown()


@pytest.mark.parametrize("answers", [
    {}, {"task_list": []}, {"task_list": {"response": None}}, {"task_list": {"response": [1]}},
    {"task_list": {"response": {"one": {}}}}])
def test_a_daemon_of_another_version_is_one_line(answers, tmp_path):
    job = Job(tmp_path / "job", train=20)
    job.set("core", rpc_retry_wait=0)
    with impostor(answers) as port:
        job.set("run", port=port)
        for command in ("run", "status"):
            code, output = job.run(command)
            assert code == 1, output
            line, = output.splitlines()
            assert "is not the daemon of this version of Luigi" in line and str(port) in line


def test_a_daemon_that_is_none_after_all_is_one_line(tmp_path):
    job = Job(tmp_path / "job", train=20)
    job.set("core", rpc_retry_wait=0)
    with impostor({"task_list": {"response": {}}}) as port:
        job.set("run", port=port)
        code, output = job.run("run")
        assert code == 40, output
        address, line, end = output.splitlines()
        assert line.startswith("error: luigid, the daemon that gives out the tasks, is lost: no")
        assert "Not Found" in line and "exit code 40" in end


@pytest.fixture
def client(monkeypatch):
    """A client whose daemon gives one answer to everything."""
    client = daemon.Client("http://127.0.0.1:1")
    monkeypatch.setattr(client, "_fetch", lambda url, body: client.answer)
    return client


@pytest.mark.parametrize("answer", ["", "{", "[]", "{}", '{"response": []}', '{"response": {}}',
                                    '{"response": {"task_id": "one"}}', '{"response": 7}'])
def test_work_that_is_none(client, answer):
    client.answer = answer
    with pytest.raises(RPCError, match="daemon of this version"):
        client.get_work(worker="me")
    with contextlib.suppress(RPCError):
        assert client.ping(worker="me") is None


def test_only_tasks_that_were_asked_for_are_run(client):
    work = {"task_id": None, "running_tasks": [], "n_pending_tasks": 1, "n_unique_pending": 1}
    client.answer = json.dumps({"response": work})
    assert client.get_work(worker="me") == work
    work |= {"task_id": "mine", "task_family": "Task", "task_params": {}}
    client.answer = json.dumps({"response": work})
    with pytest.raises(RPCError, match="has not asked for, 'mine'"):
        client.get_work(worker="me")
    client.add_task(task_id="mine", worker="me", status="PENDING")
    assert client.get_work(worker="me") == work
    # As tasks come that Luigi has put together, with a module to import.
    work |= {"task_id": None, "batch_id": "1", "task_module": "antigravity"}
    client.answer = json.dumps({"response": work})
    with pytest.raises(RPCError, match="has not asked for"):
        client.get_work(worker="me")


def test_a_stranger_gives_a_run_no_task(tmp_path):
    """Any user of the machine can reach the daemon, and name modules to import."""
    port = free_port()
    job = Job(tmp_path / "job", train=200)
    job.set("run", port=port)
    (tmp_path / "evil.py").write_text(
        f"import luigi\n"
        f"class Evil(luigi.Task):\n"
        f"    def complete(self): open({str(tmp_path / 'was_here')!r}, 'w'); return True\n")
    try:
        assert job.run("daemon")[0] == 0
        process = job.start("run", PYTHONPATH=f"{os.getcwd()}:{tmp_path}")
        with daemon.talking_to(port) as client:
            while process.poll() is None:
                for worker in client.worker_list():
                    client.add_task(task_id="Evil_1", worker=worker["name"], family="Evil",
                                    module="evil", params={}, status="PENDING", priority=1000)
        output, _ = process.communicate()
    finally:
        daemon.stop(job.work, port)
    assert not (tmp_path / "was_here").exists()
    assert process.returncode == 40, output
    assert "a task that this run has not asked for, 'Evil_1'" in output
    assert "Traceback" not in output
