"""Texts are decompressed by what they hold, and what is no text is named."""

import bz2
import gzip
import io
import lzma
import tarfile
import zipfile

import pytest
import zstandard

from model.data.text_files import read_text
from model.system.errors import UserError

TEXT = b"In the beginning God created the heaven and the earth.\n" * 100
KINDS = {"": bytes, ".gz": gzip.compress, ".bz2": bz2.compress, ".xz": lzma.compress,
         ".zst": zstandard.ZstdCompressor().compress}


def read(content, name="corpus", size=1000):
    return b"".join(read_text(io.BufferedReader(io.BytesIO(content)), name, size))


def archive(kind):
    stream = io.BytesIO()
    with (zipfile.ZipFile(stream, "w") if kind == "zip"
          else tarfile.open(fileobj=stream, mode=f"w:{kind}")) as made:
        if kind == "zip":
            made.writestr("text.txt", TEXT)
        else:
            member = tarfile.TarInfo("text.txt")
            member.size = len(TEXT)
            made.addfile(member, io.BytesIO(TEXT))
    return stream.getvalue()


@pytest.mark.parametrize("text", [b"", b"x", b"BZh9 is no bzip2\n", TEXT])
@pytest.mark.parametrize("kind", KINDS)
def test_compression_is_seen_from_the_content(kind, text):
    content = KINDS[kind](text)
    assert read(content) == text
    assert read(content, f"corpus.txt{kind}") == text or not content
    assert read(content, "corpus.txt", size=3) == text


@pytest.mark.parametrize("suffix", [".gz", ".bz2", ".xz", ".zst", ".GZ"])
def test_a_name_that_promises_another_content_is_an_error(suffix):
    for kind, compress in KINDS.items():
        if kind != suffix.lower():
            with pytest.raises(UserError, match=f"text{suffix}: it is not compressed as"):
                read(compress(TEXT), f"text{suffix}")
    with pytest.raises(UserError, match=f"text{suffix} is truncated"):
        read(b"", f"text{suffix}")


@pytest.mark.parametrize("content, what", [
    (archive("zip"), "a zip archive: unpack it"),
    (archive(""), "a tar archive: unpack it"),
    (archive("gz"), "a tar archive: unpack it"),
    (archive("xz"), "a tar archive: unpack it"),
    (gzip.compress(archive("zip")), "a zip archive: unpack it"),
    (b"7z\xbc\xaf'\x1c\0\4", "a 7-Zip archive"),
    (lzma.compress(TEXT, format=lzma.FORMAT_ALONE), "compressed in a way that is not known here"),
    ("text\n".encode("utf-16"), "UTF-16 or UTF-32: bring it to UTF-8"),
    ("text\n".encode("utf-32"), "UTF-16 or UTF-32: bring it to UTF-8"),
])
def test_what_is_no_text_is_named(content, what):
    with pytest.raises(UserError, match=f"corpus is {what}"):
        read(content)


@pytest.mark.parametrize("compression", ["", "gz", "xz"])
def test_the_member_of_an_archive(compression):
    content = archive(compression)
    (piece,) = {read_member(content, pattern) for pattern in ("*.txt", "text*")}
    assert piece == TEXT
    with pytest.raises(UserError, match="an archive without a file .*.csv: .*It holds text.txt"):
        read_member(content, "*.csv")
    for size in (len(content) // 2, len(content) - 6 if compression else 1000):
        with pytest.raises(UserError, match="corpus is truncated|cannot read corpus"):
            read_member(content[:size], "*.txt")


def test_an_archive_with_two_such_members_is_an_error():
    stream = io.BytesIO()
    with tarfile.open(fileobj=stream, mode="w:gz") as made:
        for name in ("a/1.txt", "b/2.txt"):
            made.addfile(tarfile.TarInfo(name))
    with pytest.raises(UserError, match="several files .*.txt, a/1.txt and b/2.txt: unpack it"):
        read_member(stream.getvalue(), "*.txt")


def test_an_archive_with_an_endless_header_is_an_error():
    stream = io.BytesIO()
    with tarfile.open(fileobj=stream, mode="w:gz", format=tarfile.PAX_FORMAT) as made:
        member = tarfile.TarInfo("text.txt")
        member.pax_headers = {"comment": "x" * (1 << 21)}
        made.addfile(member)
    with pytest.raises(UserError, match="cannot read corpus: it holds a header of 2,09.,... bytes"):
        read_member(stream.getvalue(), "*.txt")


def read_member(content, pattern):
    return b"".join(read_text(io.BufferedReader(io.BytesIO(content)), "corpus", 1000, pattern))
