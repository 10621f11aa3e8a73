"""The two ways of tokenizing are one rule; what a letter is does not depend on the Python."""

import re
import sys
import unicodedata

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from model.data.characters import DIGITS, DIGITS_ABOVE, LETTERS, LETTERS_ABOVE
from model.data.tokenization import RULES, clean, tokenize, tokenize_sentence

CHARACTERS = [chr(code) for code in range(sys.maxunicode + 1) if not 0xD800 <= code < 0xE000]


@pytest.mark.parametrize("ours, of_polars", [
    (f"[{LETTERS}{LETTERS_ABOVE}]", r"[^\W\d_]"), (f"[{DIGITS}{DIGITS_ABOVE}]", r"\d"),
    (r"[^\s\x00-\x1f\x7f-\x9f]", r"[^\s\p{Cc}]"), (r"[^\s\x1c-\x1f]", r"[^\s\x1c-\x1f]")],
    ids=["letters", "digits", "visible", "between spaces"])
def test_each_character_is_what_unicode_says_to_polars_and_to_python(ours, of_polars):
    import polars

    every = polars.Series(CHARACTERS)
    wanted = every.str.contains(f"^{of_polars}$")
    assert (every.str.contains(f"^{ours}$") == wanted).all()
    matches = re.compile(ours).fullmatch
    assert np.array_equal([matches(each) is not None for each in CHARACTERS], wanted.to_numpy())


def by_polars(sentences, **options):
    tokens = tokenize(sentences, **options)
    ends = np.cumsum(tokens.lengths.astype(int))
    words = [tokens.types[n] for n in tokens.indices]
    return [words[end - length:end] for end, length in zip(ends, tokens.lengths)]


# What this Python's Unicode knows: its lower case and its NFC may be older than those of polars.
known = st.characters(blacklist_categories=["Cs", "Cn"])
pieces = st.sampled_from(["<unk>", "<UNK>", " ", "\u3000", "\x1c", "\0", "ΑΣ", "Σ", "J\u030c", "’",
                          "\U0001f469\u200d\U0001f466", "\U0001f44d\U0001f3fd", "\U00010400",
                          "1,000.5", "don't", "नमस्ते", "_"])


@given(st.lists(st.lists(known | pieces, max_size=8).map("".join), max_size=4),
       st.booleans(), st.sampled_from(RULES))
def test_a_sentence_alone_gives_the_tokens_that_a_corpus_gives(texts, lowercase, split):
    options = {"lowercase": lowercase, "split": split}
    assert [tokenize_sentence(text, **options) for text in texts] == by_polars(texts, **options)


def test_letters_of_the_present_unicode_are_brought_to_lower_case_alike():
    # Between others: a sigma at the end of a word is another one.
    texts = [f"a{character}b" for character in CHARACTERS
             if character.isupper() and unicodedata.category(character) != "Cn"]
    assert [tokenize_sentence(text, lowercase=True) for text in texts] \
        == by_polars(texts, lowercase=True)


@pytest.mark.parametrize("split, text, tokens", [
    ("words", "<s> Don’t pay 1,000.50$ <UNK> </s>",
     ["don’t", "pay", "1,000.50", "$", "<unk>"]),
    ("words", "a<unk>", ["a", "<", "unk", ">"]),
    ("spaces", "a<unk> <UNK> @-@ 1,000.5 .", ["a<unk>", "<unk>", "@-@", "1,000.5", "."])])
def test_what_it_makes_of_a_sentence(split, text, tokens):
    assert tokenize_sentence(clean(text, split), lowercase=True, split=split) == tokens
