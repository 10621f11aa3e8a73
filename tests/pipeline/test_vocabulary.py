"""Choosing the vocabulary, and its file."""

import collections
import hashlib
from pathlib import Path
from unittest import mock

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from model.data.vocabulary import SPECIALS, Vocabulary, read_vocabulary, write_vocabulary
from model.system.errors import DamagedFile, UserError
from pipeline import vocabulary as module
from pipeline.tokens import Types, read_types, write_tokens
from pipeline.vocabulary import count_words

VERSES = [
    "And God said, Let there be light: and there was light.",
    "And God called the light Day, and the darkness he called Night.",
    "Jesus wept.",
]


def count(words, parts=1):
    """The words dealt out to some parts, and counted in each."""
    return [of_counts(collections.Counter(words[n::parts])) for n in range(parts)]


def build_vocabulary(parts, sentences, **how):
    """Of parts that fit in memory, so that nothing is written."""
    return module.build_vocabulary(iter(parts), sentences, scratch=Path("unused"), **how)


def of_counts(counts):
    words = sorted(counts)
    return Types("\n".join(words).encode(), np.array([counts[w] for w in words], dtype=np.uint32))


def test_types_are_counted_over_all_files(tmp_path):
    paths = []
    for number, verse in enumerate(VERSES):
        (tmp_path / f"{number}.txt").write_text(f"{verse}\n")
        paths.append(tmp_path / f"{number}.h5")
        write_tokens(tmp_path / f"{number}.txt", paths[-1], lowercase=True)
    found = count_words(map(read_types, paths), tmp_path / "x", {"in", "nowhere"}, 10_000)
    words = " ".join(VERSES).lower()
    for sign in ",.:":
        words = words.replace(sign, f" {sign}")
    expected = collections.Counter(words.split())
    assert {word: found.counts[place] for word, place in found.places.items()} == expected
    assert found.counts.dtype == np.int64
    ranked = sorted(expected, key=lambda word: (-expected[word], word))
    assert [found.rank(word) for word in ranked] == [*range(1, len(ranked) + 1)]
    few = count_words(map(read_types, paths), tmp_path / "x", {ranked[7]}, 3)
    assert sorted(few.places) == sorted([*ranked[:3], ranked[7]])
    assert (few.counts == found.counts).all()
    paths[1].write_bytes(b"rubbish")
    with pytest.raises(DamagedFile, match="1.h5"):
        count_words(map(read_types, paths), tmp_path / "x", set(), 1)


def test_entries_are_ordered_by_count_and_then_by_the_word():
    vocabulary = build_vocabulary(count("cbaaabcd"), 2, size=6)
    # <unk> stands for the one "d"; of "</s>", "<s>", "b" and "c" all occur twice.
    assert list(zip(vocabulary.words, vocabulary.counts)) == [
        ("a", 3), ("</s>", 2), ("<s>", 2), ("b", 2), ("c", 2), ("<unk>", 1),
    ]  # fmt: skip


@given(
    st.lists(st.text("abé", min_size=1, max_size=2), min_size=1, max_size=200),
    st.integers(4, 15),
    st.integers(1, 3),
    st.integers(1, 4),
    st.integers(1, 4),
)
def test_the_most_frequent_words_are_chosen(words, size, minimum_count, parts, block):
    counts = collections.Counter(words)
    ranked = sorted(counts, key=lambda word: (-counts[word], word))
    chosen = [word for word in ranked if counts[word] >= minimum_count][: size - 3]
    if not chosen:
        with pytest.raises(UserError, match="no word occurs"):
            build_vocabulary(count(words), 7, size=size, minimum_count=minimum_count)
        return
    with mock.patch("pipeline.words._BLOCK", block):
        vocabulary = build_vocabulary(
            count(words, parts), 7, size=size, minimum_count=minimum_count
        )
    assert len(vocabulary) == len(chosen) + 3 <= size
    assert [word for word in vocabulary.words if word not in SPECIALS] == chosen
    assert sum(vocabulary.counts) == len(words) + 2 * 7
    # In which parts the words occur does not matter.
    assert vocabulary == build_vocabulary(
        count(words[::-1]), 7, size=size, minimum_count=minimum_count
    )


@pytest.mark.parametrize("block", [1, 16])
def test_unk_in_the_text_is_counted_and_takes_no_place(block):
    words = [*["<unk>"] * 9, *"aaaabbbccd"]
    with mock.patch("pipeline.words._BLOCK", block):
        vocabulary = build_vocabulary(count(words, parts=2), 5, size=5)
    assert list(zip(vocabulary.words, vocabulary.counts)) == [
        ("<unk>", 9 + 2 + 1), ("</s>", 5), ("<s>", 5), ("a", 4), ("b", 3),
    ]  # fmt: skip
    found = count_words(count(words), Path("unused"), {"<unk>"}, 9)
    assert found.counts.tolist() == [4, 3, 2, 1] and sorted(found.places) == list("abcd")
    with pytest.raises(UserError, match="no word occurs"):
        build_vocabulary(count(["<unk>"]), 1, size=9)


@given(st.lists(st.sampled_from([*"abcdé", "<unk>"]), min_size=1, max_size=80), st.integers(1, 3),
       st.integers(1, 4))
def test_all_words_are_taken_that_occur_often_enough(words, minimum_count, parts):
    counts = collections.Counter(words)
    chosen = {word: count for word, count in counts.items()
              if count >= minimum_count and word != "<unk>"}
    if not chosen:
        with pytest.raises(UserError, match="no word occurs"):
            build_vocabulary(count(words), 7, size="all", minimum_count=minimum_count)
        return
    vocabulary = build_vocabulary(count(words, parts), 7, size="all", minimum_count=minimum_count)
    assert dict(zip(vocabulary.words, vocabulary.counts)) == {
        **chosen, "<unk>": len(words) - sum(chosen.values()), "<s>": 7, "</s>": 7}


def test_a_word_list_is_taken_as_it_is(tmp_path):
    path = tmp_path / "words.txt"
    path.write_text("rare\nabsent\r\n<s>\n\ncafe\u0301\tand the rest\n")
    parts = count(["often"] * 5 + ["rare"] + ["café"] * 2, parts=3)
    vocabulary = build_vocabulary(parts, 3, size=1, minimum_count=9, word_list=path)
    assert dict(zip(vocabulary.words, vocabulary.counts)) == {
        "<unk>": 5, "<s>": 3, "</s>": 3, "café": 2, "rare": 1, "absent": 0,
    }  # fmt: skip
    assert vocabulary.words[-1] == "absent"
    write_vocabulary(vocabulary, tmp_path / "vocabulary.tsv")
    again = build_vocabulary(parts, 3, size=1, word_list=tmp_path / "vocabulary.tsv")
    assert again == vocabulary


def test_the_words_of_a_list_are_read_as_the_text_is(tmp_path):
    path = tmp_path / "words.txt"
    path.write_bytes("\ufeffThe\r\nLo\u00adrd\n<UNK>\n<S>\n</s>\n\u200b\n3,630\n’\nDon’t\n".encode())
    text = tmp_path / "text.txt"
    text.write_text("The lord don’t 3,630 the other\n")
    for lowercase, words in (
        (True, {"the": 2, "lord": 1, "3,630": 1, "’": 0, "don’t": 1, "<unk>": 1}),
        (False, {"The": 1, "Lord": 0, "3,630": 1, "’": 0, "Don’t": 0, "<unk>": 4}),
    ):
        write_tokens(text, tmp_path / "tokens.h5", lowercase=lowercase)
        vocabulary = build_vocabulary(
            [read_types(tmp_path / "tokens.h5")], 1, size=1, word_list=path, lowercase=lowercase
        )
        assert dict(zip(vocabulary.words, vocabulary.counts)) == {"<s>": 1, "</s>": 1, **words}
        assert vocabulary.absent == sorted(word for word, count in words.items() if not count)


def test_the_words_of_a_list_are_those_of_a_text_that_is_tokenized_already(tmp_path):
    path, text = tmp_path / "words.txt", tmp_path / "text.txt"
    path.write_text("n't\n@-@\nU.S.\ncafe\u0301\nso\u00adft\n<unk>\n<s>\n</s>\n \nabsent\t7\n")
    text.write_text("it was n't the U.S. @-@ cafe\u0301\n\nso\u00adft\n")
    write_tokens(text, tmp_path / "tokens.h5", lowercase=False, split="spaces")
    parts = [read_types(tmp_path / "tokens.h5")]
    how = {"size": 4, "word_list": path, "lowercase": False, "split": "spaces"}
    vocabulary = build_vocabulary(parts, 3, **how)
    assert dict(zip(vocabulary.words, vocabulary.counts)) == {
        "<unk>": 3, "<s>": 3, "</s>": 3, "n't": 1, "@-@": 1, "U.S.": 1, "cafe\u0301": 1,
        "so\u00adft": 1, "absent": 0}
    write_vocabulary(vocabulary, path)
    assert build_vocabulary(parts, 3, **how) == vocabulary
    for content, fault in (("new york", "'new york' is 2 words"),
                           ("a <s> b", "<s> within the line: .* give a word a line")):
        path.write_text(f"a\n{content}\n")
        with pytest.raises(UserError, match=f"words.txt, line 2: {fault}"):
            build_vocabulary(parts, 3, **how)


@pytest.mark.parametrize(
    ("content", "fault"),
    [
        (b"a\nb\na\n", "words.txt, line 3: 'a' stands there a second time, first on line 1"),
        (b"a\nA\n", "words.txt, line 2: 'a' stands there a second time, first on line 1, as 'a'"),
        (b"a\nnew york\n", "words.txt, line 2: 'new york' is 2 words .new york. to the tokenizer"),
        (b"b\n\nto-day\n", "words.txt, line 3: 'to-day' is 3 words .to - day. to the tokenizer"),
        (b"123abc\t7\n", "words.txt, line 1: '123abc' is 2 words .123 abc. to the tokenizer"),
        (b"a\n\x01\n", r"words.txt, line 2: '\\x01' is 0 words to the tokenizer"),
        (b"ab\nba\nB-\n", "line 3: 'B-' is 2 words"),
        (b"x\nY\n", "none of the 2 words of .*words.txt occurs in the training side, .*'x'"),
        (b"a\n\xff\n", "words.txt, line 2: not valid UTF-8"),
        (b"\n<s>\n", "words.txt is empty"),
        (None, "cannot read .*words.txt"),
    ],
)
def test_a_malformed_word_list_is_an_error_that_names_the_line(tmp_path, content, fault):
    path = tmp_path / "words.txt"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(UserError, match=fault):
        build_vocabulary(count("ab"), 1, size=9, word_list=path, lowercase=True)


def test_words_are_encoded_and_unknown_ones_are_unk():
    vocabulary = Vocabulary(("the", "<unk>", "</s>", "<s>", "a"), (5, 4, 3, 3, 2))
    assert (vocabulary.unknown, vocabulary.end, vocabulary.start) == (1, 2, 3)
    indices = vocabulary.encode(["a", "b", "the", "<s>"])
    assert (indices.tolist(), indices.dtype) == ([4, 1, 0, 3], np.int32)
    assert vocabulary.encode([]).shape == (0,)


def test_the_digest_is_of_the_words_and_not_of_their_counts():
    words = ("the", "<unk>", "</s>", "<s>", "é")
    vocabulary = Vocabulary(words, (5, 4, 3, 3, 2))
    assert vocabulary.digest == hashlib.sha256("the\n<unk>\n</s>\n<s>\né\n".encode()).hexdigest()
    assert vocabulary.digest == Vocabulary(words, (6, 5, 4, 4, 2)).digest
    assert vocabulary.digest != Vocabulary(words[::-1], (5, 4, 3, 3, 2)).digest


@given(st.sets(st.text("abé'<>/_1.", min_size=1), max_size=20))
def test_a_written_vocabulary_reads_back(tmp_path_factory, words):
    path = tmp_path_factory.mktemp("vocabulary") / "vocabulary.tsv"
    words = tuple(sorted(words | set(SPECIALS)))
    vocabulary = Vocabulary(words, tuple(range(len(words))))
    write_vocabulary(vocabulary, path)
    assert read_vocabulary(path) == vocabulary
    assert path.read_text().split("\n")[0] == f"{words[0]}\t0"


@pytest.mark.parametrize(
    ("content", "fault"),
    [
        (b"<unk>\t3\n<s>\t2\n", "lacks a line for </s>"),
        (b"<unk>\t3\n<s>\t2\n</s>\t2\n<s>\t2\n", "line 4: the word '<s>' stands there a second"),
        (b"<unk>\t3\nthe\tmany\n", "line 2: 'the.*many' is not a word, a tab and a count"),
        (b"<unk>\t3\nthe 4\n", "line 2: 'the 4' is not a word, a tab and a count"),
        (b"<unk>\t3\n\n", "line 2: '' is not a word, a tab and a count"),
        (b"<unk>\t3\n\xff\t2\n", "line 2: not valid UTF-8"),
        (None, "cannot read"),
    ],
)
def test_a_malformed_vocabulary_is_an_error_that_names_the_line(tmp_path, content, fault):
    path = tmp_path / "vocabulary.tsv"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(UserError, match=fault) as failure:
        read_vocabulary(path)
    assert str(path) in str(failure.value)


def test_an_impossible_vocabulary_is_an_error():
    with pytest.raises(UserError, match="a word twice"):
        Vocabulary((*SPECIALS, "a", "a"), (1, 1, 1, 1, 1))
    with pytest.raises(UserError, match="lacks the special word </s>"):
        Vocabulary(("<unk>", "<s>", "a"), (1, 1, 1))
    with pytest.raises(UserError, match="3 words comes with 2 counts"):
        Vocabulary(SPECIALS, (1, 1))
