"""Files that are read side by side give what they give one after the other."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from model.system.errors import UserError
from pipeline.corpus import in_parallel
from pipeline.corpus.cutting import PartCutter
from pipeline.corpus.files import find_corpus
from pipeline.corpus.hashing import hash_sentences
from pipeline.corpus.parts import part_sentences
from pipeline.corpus.publishing import split_corpus


def split(folder, name, *, run_bytes, processes=1, **how):
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(in_parallel, "_RUN_BYTES", run_bytes)
        return split_corpus(
            find_corpus(str(folder)), folder.parent / f"{name} parts",
            folder.parent / f"{name}.tsv",
            sentences_per_part=100, valid_share=0.1, test_share=0.1, processes=processes, **how)


@pytest.fixture
def corpus(tmp_path, random):
    folder = tmp_path / "corpus"
    folder.mkdir()
    for number, size in enumerate([900, 3, 0, 2000, 150, 700, 1]):
        lines = [" ".join(f"w{n}" for n in random.integers(0, 50, random.integers(1, 9)))
                 for _ in range(size)]
        if number == 3:
            lines[7] = "\udcff not UTF-8"
        (folder / f"{number}.txt").write_bytes(
            "".join(f"{line}\n" for line in lines).encode(errors="surrogateescape"))
    return folder


@pytest.mark.parametrize("processes", [1, 2])
@pytest.mark.parametrize("run_bytes", [1, 20_000])
def test_runs_of_files_give_the_same_parts(corpus, processes, run_bytes):
    alone = split(corpus, "alone", run_bytes=1 << 30, on_bad_line="set_aside")
    told = []
    together = split(corpus, "together", run_bytes=run_bytes, processes=processes,
                     on_bad_line="set_aside", progress=told.append)
    assert together == alone and len(alone["sides"]["train"]) > 20
    tables = [(corpus.parent / f"{name}.tsv").read_bytes() for name in ("alone", "together")]
    assert tables[0] == tables[1] and tables[0].count(b"not valid UTF-8") == 1
    assert told == sorted(told) and told[-1] <= sum(f.stat().st_size for f in corpus.iterdir())
    assert not list(corpus.parent.rglob(".*.tmp"))
    for parts in alone["sides"].values():
        for part in parts:
            both = [part_sentences(corpus.parent / f"{name} parts", part["digest"])
                    for name in ("alone", "together")]
            assert both[0] == both[1]


@pytest.mark.parametrize("processes", [1, 2])
def test_the_first_bad_line_of_all_files_is_told(corpus, processes):
    (corpus / "4.txt").write_bytes(b"good\n\xfe\n")
    with pytest.raises(UserError) as alone:
        split(corpus, "alone", run_bytes=1 << 30)
    with pytest.raises(UserError) as together:
        split(corpus, "together", run_bytes=1, processes=processes)
    assert str(together.value) == str(alone.value)


def test_a_process_that_is_killed_is_told(corpus, monkeypatch):
    def die(*_):
        import os
        os._exit(9)

    monkeypatch.setattr(in_parallel, "_read_run", die)
    with pytest.raises(UserError, match="a process that read the corpus was killed"):
        split(corpus, "together", run_bytes=1, processes=2)


@given(st.lists(st.lists(st.sampled_from([b"a", b"bb", b"c d", b"e", b"f", b"gg", b"h" * 40]),
                         max_size=60), min_size=1, max_size=6), st.integers(1, 130))
def test_joined_cuts_are_those_of_one_cutter(tmp_path_factory, runs, sentences_per_part):
    folder = tmp_path_factory.getbasetemp() / "joined parts"

    def cut(cutter, sentences):
        return [in_parallel.Entry.of(part)
                for part in cutter.add(sentences, hash_sentences(sentences))]

    one = PartCutter(sentences_per_part)
    expected = [entry for run in runs for entry in cut(one, run)]
    found, joined = [], PartCutter(sentences_per_part)
    for run in runs:
        pieces, own = in_parallel.Pieces(), PartCutter(sentences_per_part)
        for part in own.add(run, hash_sentences(run)):
            in_parallel._keep(pieces, part, folder)
        for part in own.finish():
            rest = part.text.split(b"\n")[:-1]
            if pieces.head:
                pieces.tail = rest
            else:
                pieces.head = rest
        found += in_parallel.join(joined, pieces, folder)
    assert found == expected
    assert [part.text for part in joined.finish()] == [part.text for part in one.finish()]
