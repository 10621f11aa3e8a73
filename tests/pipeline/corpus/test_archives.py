"""What is taken from archives, and what is refused of them."""

import contextlib
import gzip
import io
import os
import random
import tarfile
from pathlib import Path

import pytest

from model.system.errors import UserError
from pipeline.corpus.archives import unpack


def files_below(folder):
    return sorted(str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file())


def entry(name, content=b"", kind=tarfile.REGTYPE, link=""):
    member = tarfile.TarInfo(name)
    member.type, member.linkname, member.size = kind, link, len(content)
    return member, content


def make_archive(path, *entries, format=tarfile.PAX_FORMAT):
    with tarfile.open(path, "w:gz", format=format) as tar:
        for member, content in entries:
            tar.addfile(member, io.BytesIO(content))
    return path


SENTENCES = b"1\tOne sentence.\n2\tAnother.\n"
LEIPZIG = (
    entry("eng_1K", kind=tarfile.DIRTYPE),
    entry("eng_1K/eng_1K-words.txt", b"1\t!\t!\n"),
    entry("eng_1K/eng_1K-sentences.txt", SENTENCES),
)


@pytest.mark.parametrize("format", [tarfile.PAX_FORMAT, tarfile.GNU_FORMAT, tarfile.USTAR_FORMAT])
def test_unpacks_the_sentences_only(tmp_path, format):
    archive = make_archive(tmp_path / "a.tar.gz", *LEIPZIG, format=format)
    folder = tmp_path / "out"
    [path] = unpack(archive, folder)
    assert path == folder / "eng_1K" / "eng_1K-sentences.txt"
    assert path.read_bytes() == SENTENCES
    assert files_below(folder) == ["eng_1K/eng_1K-sentences.txt"]


def test_unpacking_tells_how_far_it_is(tmp_path):
    content = random.Random(1).randbytes(4_000_000)
    archive = make_archive(tmp_path / "a.tar.gz", entry("a-sentences.txt", content))
    shares = []
    [path] = unpack(archive, tmp_path / "out", progress=shares.append)
    assert path.read_bytes() == content
    assert shares == sorted(shares) and shares[0] < 0.1 and 0.9 < shares[-1] <= 1
    # It is read twice, and both take their time.
    assert sum(0.1 < share < 0.4 for share in shares) > 5
    assert sum(0.6 < share < 0.9 for share in shares) > 5


def test_long_names(tmp_path):
    name = "/".join(["n" * 200] * 3) + "-sentences.txt"
    for format in (tarfile.PAX_FORMAT, tarfile.GNU_FORMAT):
        archive = make_archive(tmp_path / "a.tar.gz", entry(name, SENTENCES), format=format)
        [path] = unpack(archive, tmp_path / "out")
        assert path == tmp_path / "out" / name


@pytest.mark.parametrize(("bad", "message"), [
    (entry("../evil-sentences.txt", b"x"), "leads out of"),
    (entry("a/../../evil-sentences.txt", b"x"), "leads out of"),
    (entry("/tmp/evil-sentences.txt", b"x"), "leads out of"),
    (entry("../out-of-here/evil-sentences.txt", b"x"), "leads out of"),
    (entry("..", kind=tarfile.DIRTYPE), "leads out of"),
    (entry("evil-sentences.txt", kind=tarfile.SYMTYPE, link="/etc/passwd"), "neither a plain file"),
    (entry("evil-sentences.txt", kind=tarfile.LNKTYPE, link="/etc/passwd"), "neither a plain file"),
    (entry("evil", kind=tarfile.CHRTYPE), "neither a plain file"),
    (entry("evil", kind=tarfile.BLKTYPE), "neither a plain file"),
    (entry("evil", kind=tarfile.FIFOTYPE), "neither a plain file"),
    (entry("eng_1K/eng_1K-sentences.txt", b"again"), "twice"),
])
def test_nothing_is_unpacked_from_a_malicious_archive(tmp_path, bad, message):
    archive = make_archive(tmp_path / "a.tar.gz", *LEIPZIG, bad)
    with pytest.raises(UserError, match=f"a.tar.gz holds .*{message}"):
        unpack(archive, tmp_path / "out")
    assert files_below(tmp_path) == ["a.tar.gz"]


def test_a_link_in_the_target_folder_leads_nowhere(tmp_path):
    (tmp_path / "out").mkdir()
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "out" / "eng_1K").symlink_to(tmp_path / "elsewhere")
    archive = make_archive(tmp_path / "a.tar.gz", *LEIPZIG)
    with pytest.raises(UserError, match="leads out of"):
        unpack(archive, tmp_path / "out")
    assert files_below(tmp_path / "elsewhere") == []


def test_a_sparse_file_is_refused(tmp_path):
    # GNU tar's old form: 512 bytes in the archive, 8 GiB when unpacked.
    member = tarfile.TarInfo("evil-sentences.txt")
    member.type = tarfile.GNUTYPE_SPARSE
    header = bytearray(member.tobuf(tarfile.GNU_FORMAT))
    header[386:398] = header[398:410] = b"00000000000\0"
    header[483:495] = b"77777777777\0"
    header[148:156] = b" " * 8
    header[148:156] = f"{sum(header):06o}\0 ".encode()
    archive = tmp_path / "a.tar.gz"
    archive.write_bytes(gzip.compress(bytes(header) + bytes(1024)))
    with pytest.raises(UserError, match="neither a plain file"):
        unpack(archive, tmp_path / "out")


def test_bound_on_the_unpacked_size(tmp_path):
    archive = make_archive(tmp_path / "a.tar.gz", entry("a-sentences.txt", bytes(20_000_000)))
    assert archive.stat().st_size < 100_000
    with pytest.raises(UserError, match="unpacks to more than 1000000 bytes"):
        unpack(archive, tmp_path / "out", max_bytes=1_000_000)
    assert files_below(tmp_path) == ["a.tar.gz"]
    assert unpack(archive, tmp_path / "out", max_bytes=21_000_000)


def test_bound_on_what_follows_the_archive_in_the_stream(tmp_path):
    archive = make_archive(tmp_path / "a.tar.gz", *LEIPZIG)
    with open(archive, "ab") as file:
        file.write(gzip.compress(bytes(20_000_000)))
    with pytest.raises(UserError, match="unpacks to more than"):
        unpack(archive, tmp_path / "out", max_bytes=1_000_000)


def test_bound_on_the_number_of_entries(tmp_path):
    archive = make_archive(tmp_path / "a.tar.gz", *(entry(f"{n}-sentences.txt") for n in range(20)))
    with pytest.raises(UserError, match="more than 19 entries"):
        unpack(archive, tmp_path / "out", max_files=19)
    assert len(unpack(archive, tmp_path / "out", max_files=20)) == 20


@pytest.mark.parametrize("kind", [tarfile.XHDTYPE, tarfile.GNUTYPE_LONGNAME])
def test_a_header_of_any_length_takes_no_memory(tmp_path, kind):
    member = tarfile.TarInfo("header")
    member.type, member.size = kind, 1 << 32
    archive = tmp_path / "a.tar.gz"
    archive.write_bytes(gzip.compress(member.tobuf(tarfile.GNU_FORMAT) + bytes(1 << 16)))
    with pytest.raises(UserError, match="a header of 4294967296 bytes"):
        unpack(archive, tmp_path / "out")


@pytest.mark.parametrize("size", [-1, -256, -512, -513, -1024, -(1 << 40)])
def test_a_negative_size_ends(tmp_path, size):
    member = tarfile.TarInfo("a-sentences.txt")
    header = bytearray(member.tobuf(tarfile.GNU_FORMAT))
    header[124:136] = size.to_bytes(12, "big", signed=True)  # GNU's binary form
    header[148:156] = b" " * 8
    header[148:156] = f"{sum(header):06o}\0 ".encode()
    archive = tmp_path / "a.tar.gz"
    archive.write_bytes(gzip.compress(bytes(header) + bytes(4096)))
    with pytest.raises(UserError, match="a.tar.gz"):
        unpack(archive, tmp_path / "out")


@pytest.mark.parametrize("share", [0, 0.3, 0.9, 0.999])
def test_a_truncated_archive(tmp_path, share):
    archive = make_archive(
        tmp_path / "a.tar.gz", *LEIPZIG, entry("noise", os.urandom(100_000)))
    content = archive.read_bytes()
    archive.write_bytes(content[: int(len(content) * share)])
    with pytest.raises(UserError, match="a.tar.gz is damaged or no .tar.gz file"):
        unpack(archive, tmp_path / "out")
    assert files_below(tmp_path) == ["a.tar.gz"]


def test_a_flipped_byte_anywhere(tmp_path):
    archive = make_archive(tmp_path / "a.tar.gz", *LEIPZIG)
    content = archive.read_bytes()
    for position in range(10, len(content)):  # the gzip header's time and name carry no content
        archive.write_bytes(
            content[:position] + bytes([content[position] ^ 0x10]) + content[position + 1 :])
        with contextlib.suppress(UserError):
            [path] = unpack(archive, tmp_path / "out")
            assert path.read_bytes() == SENTENCES


# Without a time in it: the processes that run the tests must agree on their names.
NO_TAR = gzip.compress(b"no tar", mtime=0)


@pytest.mark.parametrize("content", [b"<html>Not here</html>", NO_TAR, b"\0" * 9])
def test_what_is_no_archive(tmp_path, content):
    (tmp_path / "a.tar.gz").write_bytes(content)
    with pytest.raises(UserError, match="a.tar.gz is damaged or no .tar.gz file"):
        unpack(tmp_path / "a.tar.gz", tmp_path / "out")


def test_an_archive_without_sentences_says_what_it_holds(tmp_path):
    archive = make_archive(tmp_path / "a.tar.gz", *LEIPZIG[:2])
    with pytest.raises(UserError, match="no .*-sentences.txt; it holds eng_1K, eng_1K/eng"):
        unpack(archive, tmp_path / "out")


def test_a_missing_archive(tmp_path):
    with pytest.raises(UserError, match="cannot read .*nowhere.tar.gz: No such file"):
        unpack(tmp_path / "nowhere.tar.gz", tmp_path)


def test_a_folder_that_takes_nothing(tmp_path):
    archive = make_archive(tmp_path / "a.tar.gz", *LEIPZIG)
    Path(tmp_path / "out").write_text("a file")
    with pytest.raises(UserError, match="cannot write"):
        unpack(archive, tmp_path / "out")
