"""Which sentences a model and its ancestors may have been trained on: who may be a parent.

A model that has been trained on a sentence predicts it better than one that it has never seen. So
a training must not begin with the weights of a model that has seen a sentence of today's
validation or test text, and neither must any ancestor of that model have seen one; unless today's
training text holds the sentence too, for then a training from the start sees it as well. Whether
that is so is answered by what each model keeps of its own text, and never wrongly with no: where
nothing that was kept answers it, the answer is that it may be so.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass

HELD_OUT = ("valid", "test")
_NAMES = {"valid": "validation", "test": "test"}


@dataclass(frozen=True)
class TrainingText:
    """What is known of the text that models were trained on.

    Parameters
    ----------
    format : int
        Version of the rules by which lines become sentences, and these are hashed.
    shares : dict of str to float
        For "valid" and "test": no sentence that is drawn by its hash for a split of this share was
        trained on. 0 where the split was not drawn but given.
    given : dict of str to (str or None)
        For "valid" and "test" the digest of the text that was given; None where it was drawn.
    seen : dict of str to list of str
        For the digest of a text that was given, the digests of those of its sentences that were
        trained on, sorted.
    """

    format: int
    shares: dict[str, float]
    given: dict[str, str | None]
    seen: dict[str, list[str]]

    def with_ancestors(self, ancestors: TrainingText | None) -> TrainingText:
        """What is known of this text and that of a model's ancestors together."""
        if ancestors is None:
            return self
        if ancestors.format != self.format:
            return TrainingText(self.format, dict.fromkeys(HELD_OUT, 0.0), self.given, {})
        return TrainingText(
            self.format,
            {split: min(self.shares[split], ancestors.shares[split]) for split in HELD_OUT},
            self.given,
            {text: sorted({*self.seen[text], *ancestors.seen[text]})
             for text in self.seen if text in ancestors.seen})

    def refuses(self, ancestors: TrainingText) -> str | None:
        """Why a model must not be the parent of one that is trained on this text.

        Parameters
        ----------
        ancestors : TrainingText
            Of that model and its ancestors together.

        Returns
        -------
        str or None
            None where no ancestor was trained on a held-out sentence that this text does not hold.
        """
        if ancestors.format != self.format:
            return "its text was read by the rules of another version"
        for split in HELD_OUT:
            text, name = self.given[split], _NAMES[split]
            if text is None:
                if ancestors.shares[split] < self.shares[split]:
                    return (f"it may have been trained on sentences that are drawn for {name} now: "
                            f"the share drawn before was {ancestors.shares[split]:g}, and is "
                            f"{self.shares[split]:g}")
            elif text not in ancestors.seen:
                return (f"it may have been trained on sentences of the {name} text, which it does "
                        "not know")
            elif leaks := len({*ancestors.seen[text]} - {*self.seen[text]}):
                return (f"it was trained on {leaks:,} sentence{'' if leaks == 1 else 's'} of the "
                        f"{name} text that the training text does not hold")
        return None

    def to_json(self) -> dict:
        """The content as JSON can hold it."""
        return asdict(self)
