"""From text to words: one rule for the corpus of a training and for the text to be scored.

The same regular expressions serve polars, for a corpus (`tokenize`), and Python's own `re`, for the
sentences that a model is asked about (`tokenize_sentence`), where polars need not be installed.

polars is imported inside the function that uses it. Luigi forks its workers, and a forked copy of
polars's thread pool waits for ever: so the process that forks must never have imported it. Its
threads are limited by the environment variable POLARS_MAX_THREADS, read at that import.
"""

from __future__ import annotations

import functools
import re
import unicodedata
from typing import NamedTuple

import numpy as np

from .characters import DIGITS, DIGITS_ABOVE, LETTERS, LETTERS_ABOVE
from .vocabulary import END, START, UNKNOWN

# Unicode's Default_Ignorable_Code_Point: what is not to be seen where it is not understood. In two
# halves, as Python searches for a set of 16-bit characters several times faster.
_IGNORABLE = (
    "\u00ad\u034f\u061c\u115f\u1160\u17b4\u17b5\u180b-\u180f\u200b-\u200f\u202a-\u202e\u2060-\u206f"
    "\u3164\ufe00-\ufe0f\ufeff\uffa0\ufff0-\ufff8"
)
_IGNORABLE_ABOVE = "\U0001bca0-\U0001bca3\U0001d173-\U0001d17a\U000e0000-\U000e0fff"
_IS_IGNORABLE = re.compile(f"[{_IGNORABLE}]")
_IS_ABOVE = re.compile("[\U00010000-\U0010ffff]")
_INVISIBLE = re.compile(f"[{_IGNORABLE}{_IGNORABLE_ABOVE}]+")

_SPACE, _NON_JOINER, _JOINER = "\u200b\u200c\u200d"  # each of no width
# The scripts that need joiners: Arabic and its relatives, those of India and their relatives,
# Mongolian. Blocks, not properties: these do not change with the version of Unicode.
_JOINED_SCRIPT = re.compile(
    "[\u0600-\u109f\u1700-\u18af\u1900-\u1c7f\u1cd0-\u1cff\ua800-\ua95f\ua980-\uaadf\uabc0-\uabff"
    "\ufb50-\ufdff\ufe70-\ufefc\U00010a00-\U00010aff\U00010d00-\U00010d3f\U00010f30-\U00011fff]"
)
# Those that write no space between words: Thai, Lao, Myanmar, Khmer, Tai.
_UNSPACED_SCRIPT = re.compile(
    "[\u0e00-\u0eff\u1000-\u109f\u1780-\u17ff\u1950-\u19ff\u1a20-\u1aaf\ua9e0-\ua9ff\uaa60-\uaadf]"
)
# Blocks of what joiners make one picture of, and the tones of skin.
_PICTURE = "[\u2190-\u21ff\u2600-\u27bf\u2b00-\u2bff\U0001f300-\U0001faff]"
_IS_PICTURE = re.compile(_PICTURE)
_TONED_PICTURE = f"{_PICTURE}[\U0001f3fb-\U0001f3ff]?"



def _token(letters: str, digits: str) -> str:
    """A regular expression for a token, to Python and to polars.

    Words with their inner apostrophes, numbers with their inner points and commas, pictures that
    are joined to one, and every other visible character by itself. Combining marks and joiners are
    letters (see `characters`), so that words of Hindi, Yoruba or vocalised Arabic stay whole.
    """
    return (rf"[{letters}]+(?:['’][{letters}]+)*|[{digits}]+(?:[.,][{digits}]+)*"
            rf"|{_TONED_PICTURE}(?:{_JOINER}{_TONED_PICTURE})+|[^\s\x00-\x1f\x7f-\x9f]")


_TOKEN = _token(LETTERS + LETTERS_ABOVE, DIGITS + DIGITS_ABOVE)

# How text is split into tokens: as above, or by white space, where it is tokenized already.
RULES = ("words", "spaces")
# Of Python's str: Unicode's and four control characters.
_SPACED_TOKEN = r"[^\s\x1c-\x1f]+"
_BORDER_INSIDE = re.compile(r"(?<!\S)</?[sS]>(?!\S)")

_ANY_UNKNOWN = "<[uU][nN][kK]>"
# polars knows no condition on what comes before and after: the unknown word becomes a character
# that stands for it. A line with one is refused, and to a word it never belongs.
_MARK = "\0"


def clean(text: str, split: str = "words") -> str:
    """A line as a sentence: in NFC, without invisible characters, borders, and white space around.

    `<s>` at the beginning and `</s>` at the end, in upper or lower case and with white space to the
    other side, are the borders of a sentence that is tokenized already. With "spaces" they and the
    white space around are all that is taken away.

    Invisible are Unicode's default-ignorable characters, as the soft hyphen, the byte-order mark,
    variation selectors, and the controls of direction: they are taken out, and split nothing. Kept
    is what a script needs: a zero-width joiner after a letter (and its marks), and a non-joiner
    between two, of Arabic, Indic and related scripts; and a joiner between two pictures. A
    zero-width space is a space beside the scripts that write none, as Thai and Khmer.

    Parameters
    ----------
    text : str
    split : {"words", "spaces"}
        See `tokenize`.

    Returns
    -------
    str
        Cleaned again, it is itself. Empty where the line holds no word; see `counts_empty_lines`.

    Raises
    ------
    ValueError
        With "spaces", for a border within the line: it is no word, and nothing tells what it is.
    """
    # ASCII is in NFC, and knowing that it is ASCII is far cheaper than the other checks.
    if split == "words" and not text.isascii():
        text = unicodedata.normalize("NFC", text)
        before = None
        # Without what kept them apart, marks can change their order, and be beside others.
        while text != before and (_IS_IGNORABLE.search(text) or _IS_ABOVE.search(text)):
            before, text = text, unicodedata.normalize("NFC", _INVISIBLE.sub(_needed, text))
    text = text.strip()
    while text[: len(START)].lower() == START and not text[len(START) : len(START) + 1].strip():
        text = text[len(START) :].lstrip()
    while text[-len(END) :].lower() == END and not text[-len(END) - 1 : -len(END)].strip():
        text = text[: -len(END)].rstrip()
    if split == "spaces" and (border := _BORDER_INSIDE.search(text)):
        raise ValueError(f"{border[0]} within the line: put each sentence on a line of its own")
    return text


def counts_empty_lines(split: str) -> bool:
    """Whether a line without tokens is a sentence, of its end alone.

    In text that is tokenized already each line is one: so others count, as for WikiText-2.
    """
    return split == "spaces"


def _needed(invisible: re.Match) -> str:
    """What is to be left of invisible characters that follow each other."""
    text, (start, end) = invisible.string, invisible.span()
    before, after = text[max(0, start - 1) : start], text[end : end + 1]
    if _SPACE in invisible[0] and any(map(_UNSPACED_SCRIPT.match, before + after)):
        return " "
    joiner = next((each for each in invisible[0] if each in (_NON_JOINER, _JOINER)), "")
    letter = start - 1
    while letter >= 0 and unicodedata.category(text[letter])[0] == "M":
        letter -= 1
    if letter >= 0 and _is_joined(text[letter]) and (joiner == _JOINER or _is_joined(after)):
        return joiner
    if joiner == _JOINER and _IS_PICTURE.match(before) and _IS_PICTURE.match(after):
        return joiner
    return ""


def _is_joined(character: str) -> bool:
    """Whether it is a letter or mark of a script that needs joiners."""
    return (
        _JOINED_SCRIPT.match(character) is not None
        and unicodedata.category(character)[0] in "LM"
    )


class Tokens(NamedTuple):
    """Tokenized sentences.

    Attributes
    ----------
    types : list of str
        The distinct words in the order of their code points.
    counts : uint32 array (types,)
        How often each occurs.
    indices : uint16 or uint32 array (tokens,)
        The sentences' tokens as positions in `types`, one sentence after the other.
    lengths : uint32 array (sentences,)
        The sentences' numbers of tokens.
    """

    types: list[str]
    counts: np.ndarray
    indices: np.ndarray
    lengths: np.ndarray


def tokenize_sentence(sentence: str, *, lowercase: bool, split: str = "words") -> list[str]:
    """Split one sentence into tokens, as `tokenize` does many.

    Where lower case is asked for, a letter that is younger than the Unicode of this Python stays as
    it is.

    Parameters
    ----------
    sentence : str
        A text as `clean` gives it, with the same `split`.
    lowercase, split
        As for `tokenize`.

    Returns
    -------
    list of str
    """
    tokens, spaced, is_unknown = _compiled()
    text = sentence.lower() if lowercase else sentence
    if split == "spaces":
        return [UNKNOWN if is_unknown.fullmatch(token) else token for token in spaced.findall(text)]
    if _MARK in text or is_unknown.search(text):
        text = is_unknown.sub(_MARK, text.replace(_MARK, "\x01"))  # no word either
    found = tokens[_IS_ABOVE.search(text) is not None].findall(text)
    if text.isascii() and _MARK not in text:
        return found
    return [UNKNOWN if token == _MARK else unicodedata.normalize("NFC", token) for token in found]


@functools.cache
def _compiled() -> tuple[tuple[re.Pattern, re.Pattern], re.Pattern, re.Pattern]:
    """Tokens of texts without and with characters above U+FFFF, those between spaces, `<unk>`."""
    tokens = (_token(LETTERS, DIGITS), _TOKEN)
    # White space to polars, which Python's own \s has four more of.
    space = r"\t-\r \x85\xa0\u1680\u2000-\u200a\u2028\u2029\u202f\u205f\u3000"
    return (tuple(re.compile(f"{_MARK}|{token}") for token in tokens),  # type: ignore[return-value]
            re.compile(_SPACED_TOKEN),
            re.compile(f"(?<![^{space}]){_ANY_UNKNOWN}(?![^{space}])"))


def tokenize(sentences: list[str], *, lowercase: bool, split: str = "words") -> Tokens:
    """Split sentences into tokens.

    `<unk>` with white space or an end of the sentence on either side is the unknown word, whether
    in upper or lower case; with anything else beside it, it is text as any other.

    Parameters
    ----------
    sentences : list of str
        Texts as `clean` gives them, with the same `split`.
    lowercase : bool
        Whether to bring them to lower case before.
    split : {"words", "spaces"}
        "words": into words, numbers, and single other characters. "spaces": into what white space
        separates, as it is: text that is tokenized already.

    Returns
    -------
    Tokens
        Its types are stable: each, cleaned and tokenized again, is itself. None holds white space,
        nor is one a border. The unknown word's is `<unk>`. Those of "words" are in NFC and hold no
        control character.
    """
    import polars

    texts = polars.Series(sentences, dtype=polars.String)
    if lowercase:
        texts = texts.str.to_lowercase()
    token = _TOKEN if split == "words" else _SPACED_TOKEN
    if split == "words" and texts.str.contains(_ANY_UNKNOWN).any():
        texts = texts.str.replace_all(_MARK, "\x01", literal=True)  # no word either
        for _ in range(2):  # two that follow each other share the space between them
            texts = texts.str.replace_all(rf"(^|\s){_ANY_UNKNOWN}(\s|$)", f"${{1}}{_MARK}${{2}}")
        token = f"{_MARK}|{_TOKEN}"
    found = texts.str.extract_all(token)
    lengths = found.list.len().to_numpy().astype(np.uint32)
    tokens = found.filter(found.list.len() > 0).explode()

    # Positions in an enumeration of the distinct spellings, whose order may differ from run to
    # run; sorting makes it definite. Lower case may leave NFC (J and a caron have no composed
    # form, j and a caron have), and composing never reaches beyond a token.
    spellings = tokens.unique()
    if split == "words":
        composed = spellings.str.normalize("NFC").str.replace(_MARK, UNKNOWN, literal=True)
    else:
        composed = spellings.str.replace(f"^{_ANY_UNKNOWN}$", UNKNOWN)
    types = composed.unique().sort()
    places = composed.cast(polars.Enum(types)).to_physical().to_numpy()
    places = places.astype(np.uint16 if len(types) <= 1 << 16 else np.uint32)
    indices = places[tokens.cast(polars.Enum(spellings)).to_physical().to_numpy()]
    counts = np.bincount(indices, minlength=len(types)).astype(np.uint32)
    return Tokens(types.to_list(), counts, indices, lengths)
