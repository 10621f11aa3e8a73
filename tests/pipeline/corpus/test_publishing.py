"""Reading and splitting a corpus, against a reader that holds everything in memory."""

import bz2
import collections
import gzip
import hashlib
import io
import lzma
import os
import tarfile
import unicodedata

import numpy as np
import pytest
import zstandard
from hypothesis import given, settings
from hypothesis import strategies as st

from model.system.errors import DamagedFile, UserError
from pipeline.corpus import publishing as corpus
from pipeline.corpus.files import SPLITS, find_corpus
from pipeline.corpus.publishing import (
    PartCutter,
    SentenceReader,
    choose_splits,
    hash_sentences,
    sentences_also_in_training,
    split_corpus,
)

VERSES = [
    "In the beginning God created the heaven and the earth.",
    "And God said, Let there be light: and there was light.",
    "And God called the light Day, and the darkness he called Night.",
    "Jesus wept.",
    "Rejoice evermore.",
    "Pray without ceasing.",
]


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


def naive_sentences(content: bytes) -> list[str]:
    lines = content.decode().replace("\ufeff", "").split("\n")
    return [s for line in lines if (s := unicodedata.normalize("NFC", line).strip())]


def split_texts(folder, train, valid=None, test=None, **options):
    """Write the given sentences to files, split them, and read the splits' parts back."""
    patterns = []
    for split, sentences in zip(SPLITS, (train, valid, test)):
        path = folder / f"{split}.txt"
        if sentences is not None:
            path.write_text("".join(f"{s}\n" for s in sentences), newline="")
        patterns.append(str(path) if sentences is not None else None)
    manifest = split_corpus(
        find_corpus(*patterns), folder / "parts", folder / "set_aside.tsv", **options
    )
    return manifest, {split: read_parts(folder / "parts", manifest, split) for split in SPLITS}


def read_parts(folder, manifest, split):
    parts = []
    for part in manifest["sides"][split]:
        content = (folder / f"{part['digest']}.txt").read_bytes()
        assert hashlib.sha256(content).hexdigest().startswith(part["digest"])
        assert len(content) == part["bytes"]
        assert content.count(b"\n") == part["sentences"]
        parts.append(content.decode().split("\n")[:-1])
    return parts


def cut(sentences, sentences_per_part, block=7):
    """The parts of sentences that arrive in blocks."""
    cutter = PartCutter(sentences_per_part)
    encoded = [s.encode() for s in sentences]
    parts = []
    for start in range(0, len(encoded), block):
        piece = encoded[start : start + block]
        parts += cutter.add(piece, hash_sentences(piece))
    parts += cutter.finish()
    return [part.text.decode().split("\n")[:-1] for part in parts]


def write_others(folder, beginning=""):
    """Files for validation and test of a sentence each; their names."""
    paths = [folder / "other valid.txt", folder / "other test.txt"]
    for path in paths:
        path.write_text(f"{beginning}{path.stem}\n")
    return list(map(str, paths))


# Lines


@given(
    text=st.text(
        st.sampled_from("ab \t\r\n\v\f\x1c\x85\u2028\u3000é\u0301e\ufeff한ᄒ"), max_size=60
    ),
    mark=st.booleans(),
    block_bytes=st.integers(3, 20),
)
def test_reading_in_blocks_equals_reading_whole(tmp_path_factory, text, mark, block_bytes):
    content = b"\xef\xbb\xbf" * mark + text.encode()
    path = tmp_path_factory.mktemp("corpus") / "corpus.txt"
    path.write_bytes(content)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(corpus, "_BLOCK_BYTES", block_bytes)
        if "\r" in text.rstrip("\r") and "\n" not in text:
            with pytest.raises(UserError, match="all one line"):
                read(path)
            return
        sentences, bad, counts = read(path)
    expected = naive_sentences(content)
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
    monkeypatch.setattr(corpus, "_BLOCK_BYTES", block_bytes)
    path = tmp_path / "corpus.txt"
    path.write_bytes(b"one\n" + b"x" * 3000 + b"\ntwo\n" + b"y" * 3000)
    sentences, bad, counts = read(path, max_line_bytes=20)
    assert sentences == ["one", "two"]
    assert [(b.line, b.offset, b.raw) for b in bad] == [(2, 4, b"x" * 20), (4, 3009, b"y" * 20)]
    assert counts == {
        "bytes": 6009, "lines": 4, "empty": 0, "set_aside": 2, "sentences": 2,
    }  # fmt: skip


def test_the_first_bad_line_stops_the_run_and_publishes_no_manifest(tmp_path):
    path = tmp_path / "corpus.txt"
    path.write_bytes(b"good\nb\xe4d\n")
    with pytest.raises(UserError, match=rf"{path}, line 2, byte offset 6: not valid UTF-8"):
        split_corpus(find_corpus(str(path)), tmp_path / "parts", tmp_path / "aside.tsv")
    assert not (tmp_path / "aside.tsv").exists()


def test_bad_lines_are_set_aside_in_a_table(tmp_path):
    path = tmp_path / "corpus.txt"
    path.write_bytes(b"a\xff\n" + b"%d\n" * 300 % tuple(range(300)) + b"a\tb\xff\n")
    table = tmp_path / "aside.tsv"
    manifest = split_corpus(
        find_corpus(str(path)), tmp_path / "parts", table, valid_share=0.2, test_share=0.2,
        on_bad_line="set_aside",
    )  # fmt: skip
    assert manifest["counts"]["set_aside"] == 2
    rows = [line.split("\t") for line in table.read_text().splitlines()]
    assert rows[0] == ["file", "line", "offset", "reason", "raw"]
    assert rows[2][:3] == [str(path), "302", str(path.stat().st_size - 2)]
    assert rows[2][4] == r"a\tb\xff"
    assert len(rows) == 3


def test_lines_that_are_set_aside_may_not_be_most_of_a_corpus(tmp_path):
    path = tmp_path / "corpus.txt"
    others = write_others(tmp_path)
    for good, fits in ((3, True), (2, False)):  # and the one of each other split
        path.write_bytes(b"good\n\n" * good + b"b\xe4d\n" * 5)
        table = tmp_path / f"{good}.tsv"
        arguments = find_corpus(str(path), *others), tmp_path / "parts", table
        if fits:
            assert split_corpus(*arguments, on_bad_line="set_aside")["counts"]["set_aside"] == 5
        else:
            with pytest.raises(UserError, match="more than half of the lines.*, 5 of 9, are not"):
                split_corpus(*arguments, on_bad_line="set_aside")
        assert table.exists() == fits


def test_utf_16_is_recognised(tmp_path):
    path = tmp_path / "corpus.txt"
    path.write_bytes("some text\n".encode("utf-16-le"))
    assert "UTF-16" in read(path)[1][0].reason


@given(
    lines=st.lists(st.binary(max_size=8).map(
        lambda line: bytes(b"12 \t\r\x0b\x1c\x1f\xc2\xa0\xc3\xa9\xffa"[n % 14] for n in line)
    ), min_size=1, max_size=4),
    leipzig=st.booleans(),
)
def test_lines_together_are_read_as_one_by_one(lines, leipzig):
    found = corpus._good_lines(lines, leipzig, 6)
    if found is not None:
        one_by_one = [corpus._sentence(line, leipzig, 6) for line in lines]
        assert [line for line in found if line] == [line for line in one_by_one if line]


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


# Splits


def test_the_side_of_a_sentence_does_not_depend_on_others(tmp_path):
    sentences = [f"{verse} {number}" for number in range(3000) for verse in VERSES]
    _, splits = split_texts(tmp_path, sentences, valid_share=0.1, test_share=0.2)
    of = {s: split for split in SPLITS for part in splits[split] for s in part}
    assert len(of) == len(sentences)
    shares = collections.Counter(of.values())
    assert shares["valid"] / len(sentences) == pytest.approx(0.1, abs=0.02)
    assert shares["test"] / len(sentences) == pytest.approx(0.2, abs=0.02)
    fewer = sentences[::-3] * 2
    _, splits = split_texts(tmp_path, fewer, valid_share=0.1, test_share=0.2)
    again = {s: split for split in SPLITS for part in splits[split] for s in part}
    assert all(of[s] == split for s, split in again.items())
    for split in SPLITS:  # in the order of the corpus, repetitions included
        assert [s for part in splits[split] for s in part] == [s for s in fewer if of[s] == split]


@given(st.lists(st.text(), min_size=1), st.floats(0, 0.5), st.floats(0, 0.4))
def test_sides_follow_from_the_texts_alone(sentences, valid_share, test_share):
    encoded = [s.encode() for s in sentences]
    together = choose_splits(hash_sentences(encoded), valid_share, test_share)
    alone = [choose_splits(hash_sentences([s]), valid_share, test_share)[0] for s in encoded]
    assert together.tolist() == alone
    assert together.dtype == np.uint8
    # Another share of the one split leaves the other as it is.
    other = choose_splits(hash_sentences(encoded), valid_share / 2, test_share)
    assert ((other == 2) == (together == 2)).all()
    assert ((other == 1) <= (together == 1)).all()


def test_the_hash_is_fixed_for_ever():
    hashes = hash_sentences([verse.encode() for verse in VERSES])
    assert hashes.tolist() == [
        3163092009, 3293804908, 439947328, 459436628, 565276770, 1234614763,
    ]  # fmt: skip
    # The first number that the published splitmix64 gives for the seed 1234567.
    seed = np.array([1234567], dtype=np.uint64)
    assert corpus._mix(seed, 0x9E3779B97F4A7C15).tolist() == [6457827717110365317]


def test_given_sides_are_taken_whole_and_missing_ones_are_drawn(tmp_path):
    train = [f"{verse} {number}" for number in range(200) for verse in VERSES]
    _, splits = split_texts(tmp_path, train, valid=VERSES, test=VERSES[:2])
    assert splits == {"train": [train], "valid": [VERSES], "test": [VERSES[:2]]}
    _, splits = split_texts(tmp_path, train, valid=VERSES)
    assert splits["valid"] == [VERSES]
    assert 0 < len(splits["test"][0]) < 50
    assert sorted(splits["train"][0] + splits["test"][0]) == sorted(train)


def test_a_side_without_sentences_is_an_error(tmp_path):
    with pytest.raises(UserError, match="train.txt leaves no sentence for the train side"):
        split_texts(tmp_path, [], valid=VERSES, test=VERSES[:2])
    with pytest.raises(UserError, match="test.txt leaves no sentence for the test side"):
        split_texts(tmp_path, VERSES, valid=VERSES[:2], test=["", " "])
    with pytest.raises(UserError, match=r"few different sentences \(1; .*VALID=file"):
        split_texts(tmp_path, ["In the beginning"] * 5000)
    with pytest.raises(UserError, match=r"^valid_share is 0, and .*VALID=file"):
        split_texts(tmp_path, VERSES * 100, valid_share=0)


def count_also_in_training(folder, parts):
    found = sentences_also_in_training(folder, parts)
    return {split: sum(counts.values()) for split, counts in found.items()}


@given(
    texts=st.lists(st.lists(st.sampled_from(["a", " a", "b\r", "é", "e\u0301", "c", "", "d"]),
                            max_size=8), min_size=3, max_size=3),
    given_sides=st.tuples(st.booleans(), st.booleans()),
)  # fmt: skip
def test_sentences_that_also_occur_in_training_are_counted(
    tmp_path_factory, texts, given_sides
):
    texts[0] += map(str, range(50))
    for number, text in enumerate(texts[1:]):
        text.append(f"only here {number}")
    if not given_sides[0]:
        texts[1] = None
    if not given_sides[1]:
        texts[2] = None
    folder = tmp_path_factory.mktemp("corpus")
    manifest, splits = split_texts(folder, *texts, valid_share=0.2, test_share=0.2,
                                   sentences_per_part=9)
    training = {s for part in splits["train"] for s in part}
    expected = {split: sum(s in training for part in splits[split] for s in part)
                for split in ("valid", "test")}  # fmt: skip
    digests = {split: [part["digest"] for part in manifest["sides"][split]] for split in SPLITS}
    assert count_also_in_training(folder / "parts", digests) == expected
    for split, was_given in zip(("valid", "test"), given_sides):
        assert was_given or expected[split] == 0  # a hash knows no other split


def test_sentences_are_not_counted_in_a_damaged_part(tmp_path):
    manifest, _ = split_texts(tmp_path, VERSES, VERSES[:2], VERSES[1:2])
    digests = {split: [part["digest"] for part in manifest["sides"][split]] for split in SPLITS}
    assert count_also_in_training(tmp_path / "parts", digests) == {"valid": 2, "test": 1}
    path = tmp_path / "parts" / f"{digests['train'][0]}.txt"
    path.write_bytes(path.read_bytes().replace(b"Jesus", b"jesus"))
    with pytest.raises(DamagedFile, match=path.name):
        count_also_in_training(tmp_path / "parts", digests)


def test_the_same_text_on_two_sides_is_seen_through_compression(tmp_path):
    content = "".join(f"{verse}\n" for verse in VERSES).encode()
    (tmp_path / "train.txt").write_bytes(content * 2)
    (tmp_path / "valid.txt").write_bytes(content)
    (tmp_path / "test").write_bytes(gzip.compress(content))
    with pytest.raises(UserError, match="valid.txt and .*test hold the same text, and are given"):
        split_corpus(find_corpus(*(str(tmp_path / name) for name in (
            "train.txt", "valid.txt", "test"))), tmp_path / "parts", tmp_path / "aside")


def test_text_that_is_twice_on_one_side_is_told(tmp_path):
    content = "".join(f"{verse}\n" for verse in VERSES).encode()
    folder = tmp_path / "corpus"
    folder.mkdir()
    others = write_others(tmp_path)

    def remarks():
        found = find_corpus(str(folder), *others)
        return split_corpus(found, tmp_path / "parts", tmp_path / "aside")["remarks"]

    (folder / "a.txt").write_bytes(content)
    (folder / "c.txt").write_bytes(content.replace(b"J", b"j"))
    assert remarks() == []
    (folder / "b.gz").write_bytes(gzip.compress(content))
    remark, = remarks()
    assert remark.startswith(f"{folder}/b.gz repeats the text of {folder}/a.txt: ")
    (folder / "d.txt").write_bytes(content)
    remark, = remarks()
    assert "repeats the text of" in remark and "and 1 more files do so" in remark


# Parts

SENTENCES = st.lists(st.text("abcdef", min_size=1, max_size=8), min_size=1, max_size=200)


@given(SENTENCES, st.integers(1, 30), st.integers(1, 50))
def test_the_parts_joined_are_the_stream_whatever_the_blocks(sentences, sentences_per_part, block):
    parts = cut(sentences, sentences_per_part, block)
    assert [s for part in parts for s in part] == sentences
    assert all(1 <= len(part) <= 8 * sentences_per_part for part in parts)
    assert parts == cut(sentences, sentences_per_part, len(sentences))


@settings(max_examples=300)
@given(
    count=st.integers(1, 300),
    place=st.integers(0, 300),
    change=st.sampled_from(["insert", "remove", "replace"]),
    seed=st.integers(0, 10**6),
)
def test_an_edit_anywhere_makes_at_most_two_parts_anew(count, place, change, seed):
    # Of about 20 sentences a part; one in 3,000 reaches the 160 where a border is forced, and then
    # too an edit moves that border only.
    sentences = [f"{seed} {number}" for number in range(count)]
    before = cut(sentences, 20)
    place %= count
    edited = (
        sentences[:place]
        + {
            "insert": [f"{seed} new", sentences[place]],
            "remove": [],
            "replace": [f"{seed} new"],
        }[change]
        + sentences[place + 1 :]
    )
    old = {tuple(part) for part in before}
    new = [part for part in cut(edited, 20) if tuple(part) not in old]
    assert len(new) <= 2


def test_the_stream_of_a_side_runs_across_files(tmp_path):
    for number in range(100):
        (tmp_path / "corpus").mkdir(exist_ok=True)
        (tmp_path / f"corpus/{number:02}.txt").write_text(f"{VERSES[number % 6]} {number}\n")
    folder = str(tmp_path / "corpus")
    progress = []
    found = find_corpus(folder, *write_others(tmp_path))
    manifest = split_corpus(
        found, tmp_path / "parts", tmp_path / "aside", progress=progress.append
    )
    assert [part["sentences"] for part in manifest["sides"]["train"]] == [100]
    assert manifest["counts"]["files"] == 102
    assert manifest["files"][1] == {
        "side": "train",
        "path": f"{folder}/01.txt",
        "sentences": 1,
        "bytes": len(VERSES[1]) + 4 - 1,
    }
    assert progress[-1] == sum(file.path.stat().st_size for file in found.files)


def test_a_repeated_sentence_makes_neither_tiny_nor_endless_parts():
    is_border = {line: len(cut([line] * 10 + ["x"], 640)) == 2 for line in map(str, range(5000))}
    assert set(is_border.values()) == {False, True}
    for line in {border: line for line, border in is_border.items()}.values():
        sizes = {len(part) for part in cut([line] * 51_200, 640, block=999)}
        assert sizes == {640 // 64 if is_border[line] else 8 * 640}


def test_a_part_is_bounded_in_bytes(monkeypatch):
    monkeypatch.setattr(corpus, "_LARGEST_PART_BYTES", 1000)
    sentences = [f"{number:099}" for number in range(500)] + ["x" * 5000, "y"]
    parts = cut(sentences, 10_000)
    assert [s for part in parts for s in part] == sentences
    assert {len(part) for part in parts[:49]} == {10}
    assert ["x" * 5000] in [part[-1:] for part in parts]


def test_parts_that_are_there_are_left_and_damaged_ones_repaired(tmp_path):
    sentences = [f"{verse} {number}" for number in range(200) for verse in VERSES]
    manifest, splits = split_texts(tmp_path, sentences, sentences_per_part=200)
    assert len(splits["train"]) > 2
    paths = [tmp_path / "parts" / f"{p['digest']}.txt" for p in manifest["sides"]["train"]]
    before = [path.stat().st_mtime_ns for path in paths]
    content = bytearray(paths[0].read_bytes())
    content[5] ^= 1
    paths[0].write_bytes(content)
    assert split_texts(tmp_path, sentences, sentences_per_part=200) == (manifest, splits)
    assert [path.stat().st_mtime_ns for path in paths[1:]] == before[1:]


@pytest.fixture
def moving(tmp_path):
    """A function that splits a corpus of two files, at each step of which something is done."""
    folder = tmp_path / "corpus"
    folder.mkdir()
    for name in ("a.txt", "b.txt"):
        (folder / name).write_text("".join(f"{verse} {name} {n}\n" for n in range(50)
                                           for verse in VERSES))  # fmt: skip
    others = write_others(tmp_path)

    def split_while(change, parts="parts"):
        found = find_corpus(str(folder), *others)
        manifest = split_corpus(found, tmp_path / parts, tmp_path / "s",
                                progress=lambda _: change(folder))  # fmt: skip
        return read_parts(tmp_path / parts, manifest, "train"), manifest

    return split_while


def test_what_is_written_behind_the_end_is_left_for_the_next_run(moving):
    def write(folder):
        for name in ("a.txt", "b.txt"):
            with open(folder / name, "a") as file:
                file.write("more\n")
        (folder / "c.txt").write_text("another")
        content = (folder / "b.txt").read_bytes()
        (folder / "new").write_bytes(content)
        os.replace(folder / "new", folder / "b.txt")

    expected = moving(lambda folder: None)
    assert moving(write, "again") == expected
    assert moving(lambda folder: None)[0] != expected[0]


@pytest.mark.parametrize("suffix, compress", [("txt", bytes), ("gz", gzip.compress)])
@pytest.mark.parametrize("rest", [b"half a li", "h\u00e4lf".encode()[:2], b""])
def test_the_last_line_of_a_growing_file_is_taken_only_if_it_is_whole(
    tmp_path, monkeypatch, rest, suffix, compress
):
    monkeypatch.setattr(corpus, "_REST_SECONDS", 0)
    path = tmp_path / f"corpus.{suffix}"
    text = b"one\ntwo\n" + rest
    path.write_bytes(compress(text))
    size = path.stat().st_size
    if rest != "h\u00e4lf".encode()[:2]:
        assert read(path, size=size)[0] == text.decode().split()[:2] + [rest.decode()][:len(rest)]
    with open(path, "ab") as file:
        file.write(compress(b"ne\nthree\n"))
    assert read(path, size=size)[:2] == (["one", "two"], [])


def test_a_corpus_that_changes_while_it_is_read_is_an_error(moving):
    def rewrite(folder):
        content = (folder / "b.txt").read_bytes()
        status = (folder / "b.txt").stat()
        (folder / "b.txt").write_bytes(content.replace(b"Jesus", b"jesus"))
        # As programs do that copy in place, and keep the time.
        os.utime(folder / "b.txt", ns=(status.st_atime_ns, status.st_mtime_ns))

    def shorten(folder):
        os.truncate(folder / "b.txt", 100)

    def remove(folder):
        (folder / "b.txt").unlink(missing_ok=True)

    for change in (rewrite, shorten, remove):
        fault = "cannot read .*b.txt" if change is remove else "^$"
        with pytest.raises(UserError, match=f"b.txt changed while the corpus was read|{fault}"):
            moving(change)
