"""The tokenizer against one written out character by character."""

import subprocess
import sys
import unicodedata
from hashlib import blake2b

import numpy as np
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from model.data.tokenization import clean, tokenize
from model.system.errors import DamagedFile, UserError
from model.system.hdf5 import open_hdf5
from pipeline.corpus.parts import part_digest
from pipeline.tokens import read_tokens, read_types, write_tokens

VERSES = [
    "And God said, Let there be light: and there was light.",
    "Thou shalt not covet thy neighbour’s house, ... nor his ox.",
    "The children of Senaah, 3,630; and don't (Jesus wept).",
]

# Up to where letters end and symbols begin; and beyond them some letters, marks and an emoji.
CHARACTERS = st.one_of(
    st.characters(max_codepoint=0x2100, exclude_categories=["Cs", "Cn"]),
    st.sampled_from("aAzZ09.,'’ _<>ΣσςİıǰJ\u030cẞßéĲ\u0331हिन्दी한中🙂\U00010400"),
    # Invisible ones, and what some of them join or part.
    st.sampled_from("\u200b\u200c\u200d\u00ad\u034f\ufe0f\ufeff\U000e0100"),
    st.sampled_from("\u200b\u200c\u200d\u2329मेक्ന്กខ👩🏽💻❤a1 \u0301"),
)
PIECES = st.one_of(CHARACTERS, st.sampled_from(["<unk>", "<UNK>", " <unk> ", "<s>", "</s>", " "]))
LINES = st.lists(PIECES, max_size=30).map("".join)
SENTENCES = st.lists(LINES.map(clean), max_size=8)


def is_letter(character):
    category = unicodedata.category(character)
    joins = character in "\u200c\u200d" or category == "Pc" and character != "_"
    return category[0] in "LM" or category == "Nl" or joins


def is_space(character):
    return character.isspace() and character not in "\x1c\x1d\x1e\x1f"


def is_digit(character):
    return unicodedata.category(character) == "Nd"


def is_picture(character):
    blocks = ((0x2190, 0x21FF), (0x2600, 0x27BF), (0x2B00, 0x2BFF), (0x1F300, 0x1FAFF))
    return any(first <= ord(character) <= last for first, last in blocks)


def picture_end(text, place):
    """Behind the picture at a place, and its tone of skin; `place` where there is none."""
    if not (place < len(text) and is_picture(text[place])):
        return place
    return place + 1 + ("\U0001f3fb" <= text[place + 1 : place + 2] <= "\U0001f3ff")


def joined_end(text, place):
    """Behind the pictures from a place on that joiners make one; `place` + 1 if there are none."""
    ends = [picture_end(text, place)]
    if not text.startswith("\u200d", ends[0]):
        ends = [place + 1]  # a tone may be joined to what follows without what is before it
    while text.startswith("\u200d", ends[-1]):
        following = picture_end(text, ends[-1] + 1)
        if following == ends[-1] + 1:
            break
        ends.append(following)
    return ends[-1]


def naive_tokens(text):
    """The unknown word, words with inner apostrophes, numbers with inner points and commas,
    joined pictures, other single characters."""
    tokens = []
    place = 0
    while place < len(text):
        is_free = place == 0 or is_space(text[place - 1])
        if is_free and text[place : place + 5].lower() == "<unk>" and (
                place + 5 == len(text) or is_space(text[place + 5])):
            tokens.append("<unk>")
            place += 5
            continue
        end = joined_end(text, place) if is_picture(text[place]) else place + 1
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
    found = words("'Tis 1990s' U.S. snake_case mid-air x² <unk/>", lowercase=False)
    assert " ".join(found) == "' Tis 1990 s ' U . S . snake _ case mid - air x ² < unk / >"


@given(SENTENCES, st.booleans())
@example(["\0<unk>", "<unk>\0"], False)
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
@example([clean("\u0300\u034f\u094d\u200c\u0620")], False)  # marks that change their order
@example([clean("İ\u094d\u200c\u0620")], True)
def test_every_type_is_stable_and_holds_no_space(sentences, lowercase):
    types = tokenize(sentences, lowercase=lowercase).types
    again = tokenize(list(map(clean, types)), lowercase=lowercase)
    assert words_of(again) == [[word] for word in types]
    assert all(unicodedata.is_normalized("NFC", word) for word in types)
    assert not any(c.isspace() or unicodedata.category(c) == "Cc" for word in types for c in word)
    assert not {"\u200b", "\u200c", "\u200d"} & set(types)


@given(LINES)
@example("<s> \u200b<s>\ufeff </s>")
@example("\u0300\u034f\u094d\u200c\u0620")
def test_a_cleaned_line_cleaned_again_is_itself(line):
    assert clean(clean(line)) == clean(line)
    assert unicodedata.is_normalized("NFC", clean(line))


def words(line, lowercase=True):
    (found,) = words_of(tokenize([clean(line)], lowercase=lowercase))
    return found


@pytest.mark.parametrize("lowercase", [True, False])
def test_unk_with_space_around_is_the_unknown_word(lowercase):
    assert words("the <unk> said unto the <unk>", lowercase) == [
        "the", "<unk>", "said", "unto", "the", "<unk>"]
    assert words("<unk> <unk>\t<UNK>\u3000<Unk>", lowercase) == ["<unk>"] * 4
    assert words("<unk>", lowercase) == words("\ufeff<unk>\u200b", lowercase) == ["<unk>"]
    # A text that holds it somewhere changes no other.
    tokens = tokenize(["a <unk> b", "<unk>.", "(<unk>", "a\0b\x01"], lowercase=lowercase)
    assert words_of(tokens) == [
        ["a", "<unk>", "b"], ["<", "unk", ">", "."], ["(", "<", "unk", ">"], ["a", "b"]]
    assert (tokens.types.count("<unk>"), tokens.counts[tokens.types.index("<unk>")]) == (1, 1)


@pytest.mark.parametrize(("line", "sentence"), [
    ("<s> the lamp </s>", "the lamp"),
    ("<s>\tthe lamp", "the lamp"),
    ("the lamp </s>\r", "the lamp"),
    ("<S> <s> the lamp </s> </S>", "the lamp"),
    ("<s> </s>", ""), ("<s>", ""), (" </s> ", ""), ("<s> \u200b</s>", ""),
    # Anywhere else, or with anything beside them, they are text like any other.
    ("<s>the</s>", "<s>the</s>"), ("a </s> <s> b", "a </s> <s> b"), ("</s> a <s>", "</s> a <s>"),
])
def test_borders_at_the_ends_of_a_line_are_dropped(line, sentence):
    assert clean(line) == sentence


def test_invisible_characters_are_no_words_and_split_none():
    for mark in ("\u00ad\u034f\u061c\u180e\u200b\u200c\u200d\u200e\u200f\u202a\u202e\u2060\u2066"
                 "\u2069\ufe0f\ufeff\U000e0100\U000e0041"):
        line = f"{mark}so{mark}{mark}ft 3{mark},630{mark} {mark} ,"
        assert words(line) == ["soft", "3,630", ","], ascii(mark)
        assert clean(f" {mark} ") == ""
    assert clean("e\u034f\u0301") == "é"  # what they kept apart is composed
    assert words("❤\ufe0f ❤") == ["❤", "❤"]


@pytest.mark.parametrize("text", [
    "क्\u200dष", "র\u200d্য", "می\u200cخواهم", "ක්\u200dෂ", "ന്\u200d", "ه\u200d",
    "👩\u200d💻", "👩🏽\u200d🚀", "❤\u200d🔥", "👨\u200d👩\u200d👧",
])
def test_joiners_stay_where_a_script_needs_them(text):
    assert words(f"a {text} {text}.") == ["a", text, text, "."]


def test_joiners_stay_nowhere_else():
    assert words("Auf\u200clage") == ["auflage"]
    assert words("می\u200c ۱\u200c۲ \u200dه") == ["می", "۱۲", "ه"]
    assert words("👩\u200d a\u200d💻") == ["👩", "a", "💻"]
    assert words("👍🏽👩\u200d💻") == ["👍", "🏽", "👩\u200d💻"]


def test_a_zero_width_space_parts_words_where_the_script_writes_no_space():
    assert words("ភាសា\u200bខ្មែរ Thai\u200bไทย") == ["ភាសា", "ខ្មែរ", "thai", "ไทย"]


def test_indices_are_as_small_as_the_types_allow():
    words = [f"{number}" for number in range((1 << 16) + 1)]
    small = tokenize([" ".join(words[:-1])], lowercase=True)
    large = tokenize([" ".join(words)], lowercase=True)
    assert (small.indices.dtype, large.indices.dtype) == (np.uint16, np.uint32)
    assert words_of(small) == [words[:-1]]
    assert words_of(large) == [words]


# Text that is tokenized already

# In the form of the files as they are spread: Penn Treebank, and WikiText-2.
TREEBANK = [
    " no it was n't black monday ",
    " the <unk> 's N <unk> & co. said it wo n't pay $ N million a u.s. spokesman said ",
]
WIKITEXT = [
    " ",
    " = Lamp <unk> = ",
    " ",
    " In 2000 , a 5 @-@ pound lamp cost $ 1 @,@ 000 @.@ 5 ( Japanese : 戦場の <unk> 3 ) . ",
    " ",
]


@pytest.mark.parametrize("lines, counted", [(TREEBANK, 6 + 19 + 2), (WIKITEXT, 4 + 23 + 5)])
def test_tokens_are_counted_as_others_count_them(tmp_path, lines, counted):
    tokens = tokenize([clean(line, "spaces") for line in lines], lowercase=False, split="spaces")
    assert words_of(tokens) == [line.split() for line in lines]
    assert len(tokens.indices) + len(lines) == counted  # </s> is one for each line
    path = tmp_path / "tokens.h5"
    write_tokens(write_part(tmp_path, [clean(line, "spaces") for line in lines]), path,
                 lowercase=False, split="spaces")
    assert sorted(words_of(read_tokens(path))) == sorted(line.split() for line in lines)


@given(st.lists(LINES, max_size=8), st.booleans())
@example(["e\u0301 so\u00adft \u200b \x01 a\x1cb\x85c\u00a0d", "", "don't <unk>. N @-@"], False)
@example(["J\u030c ÀΣ İ <UNK> <s>x </s>."], True)
def test_spaces_part_tokens_and_nothing_else_does(lines, lowercase):
    sentences = []
    for line in lines:
        found = line.split()
        while found and found[0].lower() == "<s>":
            del found[0]
        while found and found[-1].lower() == "</s>":
            del found[-1]
        if {"<s>", "</s>"} & {word.lower() for word in found}:
            with pytest.raises(ValueError, match="^</?[sS]> within the line: put each sentence"):
                clean(line, "spaces")
        else:
            assert clean(clean(line, "spaces"), "spaces") == clean(line, "spaces")
            sentences.append((clean(line, "spaces"), found))
    texts = [text for text, _ in sentences]
    expected = [["<unk>" if word.lower() == "<unk>" else word
                 for word in (text.lower() if lowercase else text).split()] for text in texts]
    tokens = tokenize(texts, lowercase=lowercase, split="spaces")
    assert words_of(tokens) == expected
    if not lowercase:
        assert expected == [["<unk>" if word.lower() == "<unk>" else word for word in found]
                            for _, found in sentences]
    assert tokens.types == sorted({word for sentence in expected for word in sentence})
    again = tokenize([clean(word, "spaces") for word in tokens.types], lowercase=lowercase,
                     split="spaces")
    assert words_of(again) == [[word] for word in tokens.types]


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
