"""The tokenizer against one written out character by character."""

import subprocess
import sys
import unicodedata
from hashlib import blake2b

import numpy as np
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from model.files import DamagedFile, UserError, open_hdf5
from model.tokenization import tokenize
from pipeline.corpus import part_digest
from pipeline.tokens import read_tokens, read_types, write_tokens

VERSES = [
    "And God said, Let there be light: and there was light.",
    "Thou shalt not covet thy neighbour’s house, ... nor his ox.",
    "The children of Senaah, 3,630; and don't (Jesus wept).",
]

# Up to where letters end and symbols begin; and beyond them some letters, marks and an emoji.
CHARACTERS = st.one_of(
    st.characters(max_codepoint=0x2100, exclude_categories=["Cs", "Cn"]),
    st.sampled_from("aAzZ09.,'’ _<>ΣσςİıǰJ\u030cẞßéĲ\u200d\u0331हिन्दी한中🙂\U00010400"),
)
SENTENCES = st.lists(
    st.text(CHARACTERS, max_size=30).map(lambda text: unicodedata.normalize("NFC", text)),
    max_size=8,
)


def is_letter(character):
    category = unicodedata.category(character)
    joins = character in "\u200c\u200d" or category == "Pc" and character != "_"
    return category[0] in "LM" or category == "Nl" or joins


def is_digit(character):
    return unicodedata.category(character) == "Nd"


def naive_tokens(text):
    """Words with inner apostrophes, numbers with inner points and commas, other single ones."""
    tokens = []
    place = 0
    while place < len(text):
        end = place + 1
        for belongs, inner in ((is_letter, "'’"), (is_digit, ".,")):
            if belongs(text[place]):
                while end < len(text) and (
                    belongs(text[end])
                    or (text[end] in inner and end + 1 < len(text) and belongs(text[end + 1]))
                ):
                    end += 1
        if not (text[place].isspace() or unicodedata.category(text[place]) == "Cc"):
            tokens.append(text[place:end])
        place = end
    return tokens


def words_of(tokens):
    """The sentences, put together again from the indices."""
    words = [tokens.types[index] for index in tokens.indices]
    ends = np.cumsum(tokens.lengths)
    return [words[end - length : end] for end, length in zip(ends, tokens.lengths)]


def test_words_keep_apostrophes_and_numbers_their_points():
    sentences = words_of(tokenize(VERSES, lowercase=True))
    assert [" ".join(words) for words in sentences] == [
        "and god said , let there be light : and there was light .",
        "thou shalt not covet thy neighbour’s house , . . . nor his ox .",
        "the children of senaah , 3,630 ; and don't ( jesus wept ) .",
    ]
    (words,) = words_of(tokenize(["'Tis 1990s' U.S. snake_case mid-air x² <unk>"], lowercase=False))
    assert " ".join(words) == "' Tis 1990 s ' U . S . snake _ case mid - air x ² < unk >"


@given(SENTENCES, st.booleans())
@example(["J\u030c ǰ", "ΑΣ ΑΣ. ΑΣΑ Σ", "İstanbul ISTANBUL", "हिन्दी", ""], True)
def test_tokens_equal_those_of_the_naive_tokenizer(sentences, lowercase):
    tokens = tokenize(sentences, lowercase=lowercase)
    texts = [s.lower() if lowercase else s for s in sentences]
    expected = [naive_tokens(unicodedata.normalize("NFC", text)) for text in texts]
    assert words_of(tokens) == expected
    words = [word for sentence in expected for word in sentence]
    assert tokens.types == sorted(set(words))
    assert tokens.counts.tolist() == [words.count(word) for word in tokens.types]


@given(SENTENCES, st.booleans())
def test_every_type_is_stable_and_holds_no_space(sentences, lowercase):
    types = tokenize(sentences, lowercase=lowercase).types
    assert words_of(tokenize(types, lowercase=lowercase)) == [[word] for word in types]
    assert all(unicodedata.is_normalized("NFC", word) for word in types)
    assert not any(c.isspace() or unicodedata.category(c) == "Cc" for word in types for c in word)


def test_indices_are_as_small_as_the_types_allow():
    words = [f"{number}" for number in range((1 << 16) + 1)]
    small = tokenize([" ".join(words[:-1])], lowercase=True)
    large = tokenize([" ".join(words)], lowercase=True)
    assert (small.indices.dtype, large.indices.dtype) == (np.uint16, np.uint32)
    assert words_of(small) == [words[:-1]]
    assert words_of(large) == [words]


def write_part(folder, sentences):
    text = "".join(f"{sentence}\n" for sentence in sentences).encode()
    path = folder / f"{part_digest(text)}.txt"
    path.write_bytes(text)
    return path


@pytest.mark.parametrize("sentences", [VERSES, VERSES[:1] * 3, ["\x01"], ["a\rb\x85c", "d"]])
def test_a_tokens_file_holds_the_part(tmp_path, sentences):
    path = tmp_path / "tokens.h5"
    write_tokens(write_part(tmp_path, sentences), path, lowercase=True, maker="test", version=3)
    digests = [blake2b(sentence.encode(), digest_size=8).digest() for sentence in sentences]
    counts = tokenize(sentences, lowercase=True).lengths
    order = sorted(range(len(sentences)),
                   key=lambda n: (counts[n], int.from_bytes(digests[n], "little")))
    tokens = read_tokens(path)
    expected = tokenize([sentences[n] for n in order], lowercase=True)
    for found, wanted in zip(tokens, expected):
        np.testing.assert_array_equal(found, wanted)
        assert getattr(found, "dtype", None) == getattr(wanted, "dtype", None)
    types = read_types(path)
    assert (types.words(), types.counts.tolist()) == (expected.types, expected.counts.tolist())
    with open_hdf5(path) as file:
        assert dict(file.attrs) == {"maker": "test", "version": 3}


def test_the_bytes_do_not_depend_on_threads_or_earlier_work(tmp_path):
    part = write_part(tmp_path, [f"{verse} word{n}" for n in range(3000) for verse in VERSES])
    write_tokens(part, tmp_path / "here.h5", lowercase=True)
    code = (
        "import sys; from pathlib import Path; from pipeline.tokens import write_tokens;"
        "write_tokens(Path(sys.argv[1]), Path(sys.argv[2]), lowercase=True)"
    )
    for threads in ("1", "3"):
        path = tmp_path / f"{threads}.h5"
        subprocess.run(
            [sys.executable, "-c", code, part, path],
            env={"POLARS_MAX_THREADS": threads, "PYTHONPATH": ":".join(filter(None, sys.path))},
            check=True,
        )
        assert path.read_bytes() == (tmp_path / "here.h5").read_bytes()


def test_importing_the_module_does_not_import_polars():
    # Or a forked worker would wait for ever for threads that only its parent has.
    code = "import sys, pipeline.tokens; sys.exit('polars' in sys.modules)"
    subprocess.run(
        [sys.executable, "-c", code],
        env={"PYTHONPATH": ":".join(filter(None, sys.path))},
        check=True,
    )


def test_a_damaged_or_missing_part_is_an_error_and_nothing_is_published(tmp_path):
    part = write_part(tmp_path, VERSES)
    part.write_bytes(part.read_bytes().replace(b"light", b"might"))
    with pytest.raises(DamagedFile, match=part.name) as failure:
        write_tokens(part, tmp_path / "tokens.h5", lowercase=True)
    assert failure.value.path == part
    part.unlink()
    with pytest.raises(UserError, match=f"cannot read the part .*{part.name}"):
        write_tokens(part, tmp_path / "tokens.h5", lowercase=True)
    assert list(tmp_path.iterdir()) == []


def test_a_damaged_tokens_file_is_an_error_that_names_it(tmp_path):
    path = tmp_path / "tokens.h5"
    write_tokens(write_part(tmp_path, VERSES), path, lowercase=True)
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)
    for read in (read_tokens, read_types):
        with pytest.raises(DamagedFile, match="tokens.h5"):
            read(path)
