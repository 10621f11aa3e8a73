"""Who may be a parent: the rules against sets of sentences kept whole."""

from hypothesis import given
from hypothesis import strategies as st

from model.lineage import HELD_OUT, TrainingText

SENTENCES = range(12)
# The place of a sentence on the line of hashes, as the splits draw: valid low, test high.
PLACES = {sentence: sentence / 12 for sentence in SENTENCES}


class Text:
    """A text with its splits, kept whole."""

    def __init__(self, corpus, valid, test):
        """`valid` and `test`: a share, or the sentences that are given."""
        drawn = {split: share if isinstance(share, float) else 0.0
                 for split, share in (("valid", valid), ("test", test))}
        self.held_out = {
            "valid": {s for s in corpus if PLACES[s] < drawn["valid"]} if drawn["valid"]
            else set(valid),
            "test": {s for s in corpus if PLACES[s] >= 1 - drawn["test"]} if drawn["test"]
            else set(test)}
        self.training = {s for s in corpus
                         if drawn["valid"] <= PLACES[s] < 1 - drawn["test"]}
        texts = {split: None if drawn[split] else repr(sorted(self.held_out[split]))
                 for split in HELD_OUT}
        self.known = TrainingText(
            1, drawn, texts,
            {text: sorted(map(str, self.held_out[split] & self.training))
             for split, text in texts.items() if text})


sets = st.frozensets(st.sampled_from(SENTENCES))
few = st.sampled_from([frozenset({0, 5}), frozenset({5, 11}), frozenset({7})])
splits = few | st.sampled_from([0.1, 0.2, 0.3])
texts = st.builds(Text, sets, splits, splits)


@given(st.lists(texts, min_size=1, max_size=4), texts)
def test_no_sentence_that_an_ancestor_has_seen_is_missed(ancestors, today):
    known = None
    for text in ancestors:
        known = text.known.with_ancestors(known)
    seen = set().union(*(text.training for text in ancestors))
    leaked = (today.held_out["valid"] | today.held_out["test"]) & seen - today.training
    if leaked:
        assert today.known.refuses(known)


@given(sets, sets, splits, splits)
def test_sentences_that_come_never_refuse_a_parent(corpus, more, valid, test):
    """Nor repetitions between the splits, which a training from the start sees as well."""
    yesterday, today = Text(corpus, valid, test), Text(corpus | more, valid, test)
    assert today.known.refuses(yesterday.known) is None


def test_each_refusal_says_why():
    drawn = Text({1, 2, 3}, 0.2, 0.2)
    given_text = Text({1, 2, 5}, {5}, {7, 8})
    assert "drawn for validation" in drawn.known.refuses(given_text.known)
    assert "validation text, which it does not know" in given_text.known.refuses(drawn.known)
    without = Text({1, 2}, {5}, {7, 8})
    assert ("trained on 1 sentence of the validation text that the training text does not hold"
            in without.known.refuses(given_text.known))
    smaller = Text({1, 2, 3}, 0.1, 0.2)
    assert "was 0.1, and is 0.2" in drawn.known.refuses(smaller.known)
    assert smaller.known.refuses(drawn.known) is None
    other = TrainingText(2, drawn.known.shares, drawn.known.given, {})
    assert "another version" in drawn.known.refuses(other)
    assert drawn.known.refuses(drawn.known.with_ancestors(other)) is not None
