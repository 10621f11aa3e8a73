"""What a sample of a corpus is made of."""

import gzip
import lzma

import pytest

from pipeline import sampling
from pipeline.corpus.files import find_corpus
from pipeline.sampling import take_sample

LINES = [f"sentence {n} of many".encode() for n in range(20_000)]


def sampled(folder, split="train"):
    return [line for path in sorted((folder / split).iterdir())
            for line in path.read_bytes().splitlines()]


def test_a_small_corpus_is_its_own_sample(tmp_path):
    (tmp_path / "a.txt").write_bytes(b"\n".join(LINES[:100]))  # no end of the last line
    (tmp_path / "b.txt.xz").write_bytes(lzma.compress(b"\n".join([*LINES[100:200], b""])))
    (tmp_path / "valid.txt").write_bytes(b"one\r\ntwo\n")
    corpus = find_corpus(str(tmp_path / "[ab].*"), str(tmp_path / "valid.txt"))
    sample, shares = take_sample(corpus, tmp_path / "sample")
    assert shares == {"train": 1.0, "valid": 1.0}
    assert sampled(tmp_path / "sample") == LINES[:200]
    assert sampled(tmp_path / "sample", "valid") == [b"one", b"two"]
    assert sample.patterns["test"] is None


def test_of_a_large_plain_text_lines_are_taken_from_all_over(tmp_path, monkeypatch):
    monkeypatch.setattr(sampling, "_MOST_BYTES", 40_000)
    monkeypatch.setattr(sampling, "_LEAST_BYTES", 1000)
    (tmp_path / "text.txt").write_bytes(b"\n".join([*LINES, b""]))
    size = (tmp_path / "text.txt").stat().st_size
    _, shares = take_sample(find_corpus(str(tmp_path / "text.txt")), tmp_path / "sample")
    found = sampled(tmp_path / "sample")
    numbers = [LINES.index(line) for line in found]
    assert numbers == sorted(set(numbers))
    assert numbers[0] == 0 and numbers[-1] > 18_000
    assert abs(numbers[len(numbers) // 2] - 10_000) < 2000
    assert shares["train"] == pytest.approx(sum(len(line) + 1 for line in found) / size)
    assert shares["train"] == pytest.approx(40_000 / size, rel=0.05)


@pytest.mark.parametrize("compress", [gzip.compress, lzma.compress])
def test_of_a_large_compressed_text_the_beginning_is_taken(tmp_path, monkeypatch, random, compress):
    lines = [random.bytes(40).hex().encode() for _ in LINES]
    (tmp_path / "text").write_bytes(compress(b"\n".join([*lines, b""])))
    monkeypatch.setattr(sampling, "_MOST_BYTES", (tmp_path / "text").stat().st_size // 3)
    _, shares = take_sample(find_corpus(str(tmp_path / "text")), tmp_path / "sample")
    found = sampled(tmp_path / "sample")
    assert found == lines[:len(found)]
    assert 1 / 3 < shares["train"] < 0.5
    assert len(found) / len(lines) == pytest.approx(shares["train"], rel=0.1)


def test_many_small_files_all_count(tmp_path, monkeypatch):
    monkeypatch.setattr(sampling, "_MOST_BYTES", 1000)
    (tmp_path / "many").mkdir()
    for n in range(100):
        (tmp_path / "many" / f"{n}.txt").write_bytes(LINES[n] + b"\n" + LINES[n + 100] + b"\n")
    _, shares = take_sample(find_corpus(str(tmp_path / "many")), tmp_path / "sample")
    assert sorted(sampled(tmp_path / "sample")) == sorted(LINES[:100])
    assert shares["train"] == pytest.approx(0.5, abs=0.02)
