"""Parts as files."""

from tests.pipeline.corpus.texts import VERSES, split_texts


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
