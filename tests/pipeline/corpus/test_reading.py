"""Reading a file in blocks, against a reader that holds all of it in memory."""

import bz2
import collections
import gzip
import io
import lzma
import tarfile
import unicodedata

import numpy as np
import pytest
import zstandard
from hypothesis import given
from hypothesis import strategies as st

from model.system.errors import UserError
from pipeline.corpus import reading
from pipeline.corpus.files import find_corpus
from pipeline.corpus.publishing import split_corpus
from pipeline.corpus.reading import SentenceReader
from pipeline.corpus.splits import SPLITS
from tests.pipeline.corpus.texts import VERSES, read_parts


def compress(text: bytes, suffix: str) -> bytes:
    return {
        "": lambda text: text,
        ".gz": gzip.compress,
        ".bz2": bz2.compress,
        ".xz": lzma.compress,
        ".zst": zstandard.ZstdCompressor().compress,
    }[suffix](text)


def read(path, **options):
    """All sentences of a file as text, its bad lines, and the counts."""
    bad, counts = [], collections.Counter()
    reader = SentenceReader(path, on_bad_line=bad.append, counts=counts, **options)
    return [s.decode() for block in iter(reader.block, None) for s in block], bad, counts


def naive_sentences(content: bytes, tokens: str) -> list[str]:
    text = content.decode()
    if tokens == "spaces":
        lines = text.removeprefix("\ufeff").split("\n")
        return [line.strip() for line in (lines if lines[-1] else lines[:-1])]
    lines = text.replace("\ufeff", "").split("\n")
    return [s for line in lines if (s := unicodedata.normalize("NFC", line).strip())]


@given(
    text=st.text(
        st.sampled_from("ab \t\r\n\v\f\x1c\x85\u2028\u3000é\u0301e\ufeff한ᄒ"), max_size=60
    ),
    mark=st.booleans(),
    block_bytes=st.integers(3, 20),
    tokens=st.sampled_from(["words", "spaces"]),
)
def test_reading_in_blocks_equals_reading_whole(
    tmp_path_factory, text, mark, block_bytes, tokens
):
    content = b"\xef\xbb\xbf" * mark + text.encode()
    path = tmp_path_factory.mktemp("corpus") / "corpus.txt"
    path.write_bytes(content)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(reading, "_BLOCK_BYTES", block_bytes)
        if "\r" in text.rstrip("\r") and "\n" not in text:
            with pytest.raises(UserError, match="all one line"):
                read(path)
            return
        sentences, bad, counts = read(path, tokens=tokens)
    expected = naive_sentences(content, tokens)
    assert sentences == expected and not bad
    assert counts["bytes"] == len(content)
    assert counts["sentences"] == len(expected)
    rest = content.removeprefix(b"\xef\xbb\xbf")
    assert counts["lines"] == rest.count(b"\n") + (rest != b"" and not rest.endswith(b"\n"))
    assert counts["empty"] == counts["lines"] - counts["sentences"]


def test_only_line_feeds_end_a_sentence(tmp_path):
    path = tmp_path / "corpus.txt"
    inner = "a\rb\vc\fd\x1ce\x85f\u2028g\u2029h"
    path.write_bytes(f"{inner}\r\n\r\n  second \n".encode())
    assert read(path)[0] == [inner, "second"]


@pytest.mark.parametrize("lines", [2, 10_000])
def test_carriage_returns_alone_are_named(tmp_path, lines):
    path = tmp_path / "corpus.txt"
    path.write_bytes(b"Jesus wept.\r" * lines)
    with pytest.raises(UserError, match=r"corpus.txt.*lines end with CR alone\? Bring them to LF"):
        split_corpus(find_corpus(str(path)), tmp_path / "parts", tmp_path / "aside")


def test_text_is_brought_to_nfc(tmp_path):
    path = tmp_path / "corpus.txt"
    path.write_bytes("e\u0301te\u0301\nplain\n\u1112\u1161\u11ab\n".encode())
    assert read(path)[0] == ["été", "plain", "한"]


def test_borders_and_invisible_characters_are_no_part_of_a_sentence(tmp_path):
    path = tmp_path / "corpus.txt"
    lines = ["<s> one </s>", "<s> </s>", "\u200b\u00ad", "two\u200b\u2060 </s> ", "<b>three</b>"]
    wanted = ["one", "two", "<b>three</b>"]
    path.write_bytes("\r\n".join(lines).encode())
    sentences, _, counts = read(path)
    assert (sentences, counts["lines"], counts["empty"]) == (wanted, 5, 2)
    # A bad line makes all others of the block be read one by one.
    path.write_bytes("\n".join(["nul\0", *lines]).encode())
    sentences, bad, counts = read(path)
    assert (sentences, len(bad), counts["empty"]) == (wanted, 1, 2)


@pytest.mark.parametrize("suffix", ["", ".gz", ".bz2", ".xz", ".zst", ".GZ"])
def test_compressed_files_are_read_by_their_suffix(tmp_path, suffix):
    content = "".join(f"{verse}\n" for verse in VERSES * 1000).encode()
    path = tmp_path / f"corpus.txt{suffix}"
    # Two frames, one after the other, as `cat a.gz b.gz` makes them.
    path.write_bytes(compress(content, suffix.lower()) + compress(content, suffix.lower()))
    progress = []
    sentences, _, counts = read(path, progress=progress.append)
    assert sentences == VERSES * 2000
    assert counts["bytes"] == 2 * len(content)
    assert sum(progress) == path.stat().st_size


@pytest.mark.parametrize("suffix", [".gz", ".bz2", ".xz", ".zst"])
def test_damaged_compressed_files_are_errors_that_name_them(tmp_path, suffix):
    random = np.random.default_rng(1)
    lines = random.integers(97, 123, (5000, 40), dtype=np.uint8)
    content = b"\n".join(line.tobytes() for line in lines)
    whole = compress(content, suffix)
    path = tmp_path / f"corpus.txt{suffix}"
    for size in (len(whole) // 2, len(whole) - 1, 0):
        path.write_bytes(whole[:size])
        with pytest.raises(UserError, match=f"{path} is truncated"):
            read(path)
    for damaged in (b"plain text, not compressed\n", whole + b"rubbish after the end"):
        path.write_bytes(damaged)
        if suffix in (".bz2", ".xz") and damaged.startswith(whole):
            continue  # Python's readers of these ignore what follows the end
        with pytest.raises(UserError, match=f"cannot read {path}"):
            read(path)


def test_a_file_that_cannot_be_read_is_an_error_that_names_it(tmp_path):
    with pytest.raises(UserError, match=f"cannot read {tmp_path}"):
        read(tmp_path)


@pytest.mark.parametrize("suffix, compress", [("txt", bytes), ("gz", gzip.compress)])
@pytest.mark.parametrize("rest", [b"half a li", "h\u00e4lf".encode()[:2], b""])
def test_the_last_line_of_a_growing_file_is_taken_only_if_it_is_whole(
    tmp_path, monkeypatch, rest, suffix, compress
):
    monkeypatch.setattr(reading, "_REST_SECONDS", 0)
    path = tmp_path / f"corpus.{suffix}"
    text = b"one\ntwo\n" + rest
    path.write_bytes(compress(text))
    size = path.stat().st_size
    if rest != "h\u00e4lf".encode()[:2]:
        assert read(path, size=size)[0] == text.decode().split()[:2] + [rest.decode()][:len(rest)]
    with open(path, "ab") as file:
        file.write(compress(b"ne\nthree\n"))
    assert read(path, size=size)[:2] == (["one", "two"], [])


# Bad lines


def test_bad_lines_are_told_with_line_and_byte_offset(tmp_path):
    lines = [
        b"\xef\xbb\xbfgood",
        b"bad \xff byte",
        b"",
        b"  na\xc3\xafve  ",
        b"nul \0 byte",
        b"x" * 101,
        b"y" * 100 + b"\r",
        b"cut short \xc3",
    ]
    path = tmp_path / "corpus.txt"
    path.write_bytes(b"\n".join(lines))
    sentences, bad, counts = read(path, max_line_bytes=100)
    assert sentences == ["good", "naïve", "y" * 100]
    starts = np.cumsum([0] + [len(line) + 1 for line in lines])
    assert [(b.line, b.offset) for b in bad] == [
        (2, starts[1] + 4),
        (5, starts[4] + 4),
        (6, starts[5]),
        (8, starts[7] + 10),
    ]
    reasons = ["not valid UTF-8", "NUL byte", "longer than max_line_bytes", "not valid UTF-8"]
    assert all(reason in b.reason for reason, b in zip(reasons, bad))
    assert (counts["lines"], counts["empty"], counts["set_aside"]) == (8, 1, 4)


@pytest.mark.parametrize("block_bytes", [4, 10, 64, 10_000])
def test_a_line_without_end_is_one_bad_line_whatever_the_blocks(tmp_path, monkeypatch, block_bytes):
    monkeypatch.setattr(reading, "_BLOCK_BYTES", block_bytes)
    path = tmp_path / "corpus.txt"
    path.write_bytes(b"one\n" + b"x" * 3000 + b"\ntwo\n" + b"y" * 3000)
    sentences, bad, counts = read(path, max_line_bytes=20)
    assert sentences == ["one", "two"]
    assert [(b.line, b.offset, b.raw) for b in bad] == [(2, 4, b"x" * 20), (4, 3009, b"y" * 20)]
    assert counts == {
        "bytes": 6009, "lines": 4, "empty": 0, "set_aside": 2, "sentences": 2,
    }  # fmt: skip


def test_utf_16_is_recognised(tmp_path):
    path = tmp_path / "corpus.txt"
    path.write_bytes("some text\n".encode("utf-16-le"))
    assert "UTF-16" in read(path)[1][0].reason


@given(
    lines=st.lists(st.binary(max_size=8).map(
        lambda line: bytes(b"12 \t\r\x0b\x1c\x1f\xc2\xa0\xc3\xa9\xffa"[n % 14] for n in line)
    ), min_size=1, max_size=4),
    leipzig=st.booleans(),
    tokens=st.sampled_from(["words", "spaces"]),
)
def test_lines_together_are_read_as_one_by_one(lines, leipzig, tokens):
    found = reading._good_lines(lines, leipzig, 6, tokens)
    if found is not None:
        one_by_one = [reading._sentence(line, leipzig, 6, tokens) for line in lines]
        assert [line for line in found if line] == [line for line in one_by_one if line]


# Text that is tokenized already


def test_tokens_by_spaces_stay_as_they_are_and_empty_lines_are_sentences(tmp_path):
    path = tmp_path / "corpus.txt"
    path.write_text(" \n = Robert <unk> = \n \n<s> cafe\u0301 so\u00adft\u200b @-@ \ufeff </s>\r\n")
    assert read(path, tokens="spaces") == (
        ["", "= Robert <unk> =", "", "cafe\u0301 so\u00adft\u200b @-@ \ufeff"], [],
        {"bytes": path.stat().st_size, "lines": 4, "sentences": 4, "empty": 0, "set_aside": 0})
    assert read(path)[0] == ["= Robert <unk> =", "café soft @-@"]


def test_a_border_within_a_line_is_a_bad_line_where_spaces_part_tokens(tmp_path):
    path = tmp_path / "corpus.txt"
    path.write_text("<s> a </s>\n<s> b </s> <s> c </s>\nx<s> </s>y\n")
    sentences, bad, _ = read(path, tokens="spaces")
    assert sentences == ["a", "x<s> </s>y"]
    assert [(line.line, line.offset, line.reason) for line in bad] == [
        (2, 11, "</s> within the line: put each sentence on a line of its own")]
    assert read(path)[0] == ["a", "b </s> <s> c", "x<s> </s>y"]


# The Leipzig corpora


def test_ids_of_leipzig_corpora_are_dropped(tmp_path):
    path = tmp_path / "corpus.txt"
    path.write_text("\n1\tJesus wept.\n2\tRejoice\tevermore.\n\n3\t\nno id\n4\n")
    sentences, bad, counts = read(path)
    assert sentences == ["Jesus wept.", "Rejoice\tevermore."]
    assert [(b.line, b.offset) for b in bad] == [(6, 39), (7, 45)]
    assert counts["empty"] == 3
    assert len(read(path, format="plain")[0]) == 5
    path.write_text("Plain.\n1\tJesus wept.\n")
    assert read(path)[0] == ["Plain.", "1\tJesus wept."]
    assert read(path, format="leipzig")[0] == ["Jesus wept."]


def test_the_archive_of_a_leipzig_corpus_is_read(tmp_path):
    texts = {"train": VERSES * 50, "valid": VERSES[:1], "test": VERSES[1:2]}
    for split, verses in texts.items():
        text = "".join(f"{n}\t{verse}\n" for n, verse in enumerate(verses, 1)).encode()
        with tarfile.open(tmp_path / f"{split}.tar.gz", "w:gz") as archive:
            for name, content in (("words.txt", b"1\tthe\n"), ("sentences.txt", text)):
                member = tarfile.TarInfo(f"{split}_1K/{split}_1K-{name}")
                member.size = len(content)
                archive.addfile(member, io.BytesIO(content))
    found = find_corpus(*(str(tmp_path / f"{split}.tar.gz") for split in SPLITS))
    manifest = split_corpus(found, tmp_path / "parts", tmp_path / "aside")
    for split, verses in texts.items():
        assert read_parts(tmp_path / "parts", manifest, split) == [verses]


def test_what_was_taken_for_a_leipzig_corpus_says_how_to_have_it_read_as_plain_text(tmp_path):
    path = tmp_path / "corpus.txt"
    path.write_text("1984\tJesus wept.\nRejoice evermore.\n")
    with pytest.raises(UserError, match=r"line 2.* no id and tab.*set format = plain"):
        split_corpus(find_corpus(str(path)), tmp_path / "parts", tmp_path / "aside")
