import http.client
import socket
import urllib.error
import urllib.parse
import urllib.request

import pytest

from pipeline.report.training_page import TrainingPage


def test_the_training_page_is_served_until_the_training_ends(tmp_path):
    path = tmp_path / "training.html"
    with TrainingPage(tmp_path / "log.jsonl", path) as page:
        url = page.url
        with urllib.request.urlopen(url) as answer:
            assert answer.read() == path.read_bytes()
    assert "The training has ended" in path.read_text()
    with pytest.raises(urllib.error.URLError):
        urllib.request.urlopen(url)
    with (pytest.raises(ValueError, match="loss"),
          TrainingPage(tmp_path / "log.jsonl", path)):
        raise ValueError("the loss is not finite")
    assert "the loss is not finite" in path.read_text()


@pytest.fixture
def served(tmp_path):
    """A page beside which other files lie: its folder, its port and its path."""
    folder = tmp_path / "report"
    (folder / "plots").mkdir(parents=True)
    (folder / "evaluation.json").write_text("secret")
    (folder / "plots" / "speed.svg").write_text("secret")
    (tmp_path / "secret").write_text("secret")
    with TrainingPage(folder / "log.jsonl", folder / "training.html") as page:
        address = urllib.parse.urlsplit(page.url)
        yield folder, address.port, address.path


def get(port, path, host=None, method="GET"):
    connection = http.client.HTTPConnection("127.0.0.1", port)
    connection.putrequest(method, path, skip_host=True)
    if host != "":
        connection.putheader("Host", host or f"127.0.0.1:{port}")
    connection.endheaders()
    answer = connection.getresponse()
    content = answer.read()
    connection.close()
    return answer.status, content


def test_only_the_page_is_served(served):
    folder, port, page = served
    assert get(port, page) == (200, (folder / "training.html").read_bytes())
    token = page.rpartition("/")[0]
    assert len(token) > 20
    for path in ("/", token, f"{token}/", "/training.html", "//training.html", "/evaluation.json",
                 "/plots/", f"{token}/evaluation.json", f"{token}/plots/speed.svg",
                 f"{token}/../evaluation.json", f"{token}/%2e%2e/secret", f"{page}/../../secret",
                 f"{token}/..%2fsecret", f"{page}?x", f"{page}%00", page.upper(),
                 f"{folder}/evaluation.json", "*", f"http://127.0.0.1:{port}{page}"):
        status, content = get(port, path)
        assert status == 404 and b"secret" not in content, path
    for method in ("HEAD", "POST", "PUT", "DELETE", "OPTIONS"):
        assert get(port, page, method=method)[0] == 501


def test_the_address_is_another_each_time(tmp_path):
    found = set()
    for _ in range(3):
        with TrainingPage(tmp_path / "log.jsonl", tmp_path / "training.html") as page:
            found.add(urllib.parse.urlsplit(page.url).path)
    assert len(found) == 3


def test_a_name_that_is_made_to_lead_here_is_refused(served):
    """DNS rebinding: a web page has its own name lead to 127.0.0.1, and reads what comes."""
    _, port, page = served
    assert get(port, page, f"localhost:{port}")[0] == 200
    for host in ("evil.example", f"evil.example:{port}", "127.0.0.1", f"127.0.0.1:{port + 1}",
                 f"127.0.0.1:{port}.evil.example", f"[::1]:{port}", ""):
        assert get(port, page, host)[0] == 421, host


def test_a_page_that_is_gone_and_odd_requests_end_nothing(served, capfd):
    folder, port, page = served
    content = (folder / "training.html").read_bytes()
    (folder / "training.html").rename(folder / "away")
    with pytest.raises(http.client.HTTPException):
        get(port, page)
    for request in (b"\xff\xfe\r\n\r\n", b"GET\r\n\r\n", b"GET " + b"/" * 100_000):
        with socket.create_connection(("127.0.0.1", port)) as connection:
            connection.sendall(request)
    (folder / "away").rename(folder / "training.html")
    assert get(port, page) == (200, content)
    assert capfd.readouterr() == ("", "")


def test_it_listens_on_the_loopback_address_only(served):
    _, port, _ = served
    with open("/proc/net/tcp") as table:
        found = [line.split()[1] for line in table if line.split()[3] == "0A"]
    assert [place for place in found if place.endswith(f":{port:04X}")] == [f"0100007F:{port:04X}"]
