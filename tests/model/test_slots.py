"""Slots: a window is shared out evenly, and sums are added in the order of a tree."""

import math
from itertools import chain

import numpy as np
import pytest

from model.data.batches import MicroBatch
from model.slots import PairwiseSums, check_processes, deal
from model.system.errors import BadInput


def window(random, batches=40):
    """Micro-batches of all sizes."""
    sizes = zip(random.integers(1, 33, batches), random.integers(2, 60, batches))
    return [MicroBatch(*np.zeros((2, sentences, steps), "int32")) for sentences, steps in sizes]


@pytest.mark.parametrize("slots", [1, 2, 8, 64])
def test_every_micro_batch_is_dealt_once_and_slots_keep_the_order(random, slots):
    batches = window(random)
    dealt = deal(batches, slots)
    assert len(dealt) == slots
    assert sorted(chain(*dealt)) == list(range(len(batches)))
    assert all(places == sorted(places) for places in dealt)


@pytest.mark.parametrize("slots", [2, 4, 8])
def test_slots_are_about_as_large(random, slots):
    """Graham's bound: the largest is at most 4/3 of the best there can be."""
    batches = window(random)
    loads = [sum(batches[place].inputs.size for place in places) for places in deal(batches, slots)]
    largest = max(batch.inputs.size for batch in batches)
    assert max(loads) <= 4 / 3 * max(sum(loads) / slots, largest)


@pytest.mark.parametrize("slots", [2, 16, 256])
def test_as_many_micro_batches_as_processes_leave_none_idle(random, slots):
    """However many slots there are: those of a process follow each other."""
    for processes in (2, 4, 8, 16):
        if processes <= slots:
            dealt = deal(window(random, processes), slots)
            runs = [dealt[n:n + slots // processes] for n in range(0, slots, slots // processes)]
            assert [sum(map(len, run)) for run in runs] == [1] * processes


class Recorder:
    """Sums of one array, and how many of them there are at a time."""

    def __init__(self):
        self.sum, self.there, self.most = np.zeros(100, "float32"), 1, 1

    def take_sums(self):
        taken, self.sum = self.sum, np.zeros(100, "float32")
        self.there += 1
        self.most = max(self.most, self.there)
        return [taken]

    def add_sums(self, sums):
        self.sum = self.sum + sums[0]
        self.there -= 1


def tree(values):
    if len(values) == 1:
        return values[0]
    half = len(values) // 2
    return tree(values[:half]) + tree(values[half:])


@pytest.mark.parametrize("slots", [1, 2, 4, 16, 64])
def test_sums_are_those_of_the_tree_bit_for_bit_and_few_are_there(random, slots):
    values = random.standard_normal((slots, 100)).astype("float32")
    of = Recorder()
    sums = PairwiseSums(of, slots)
    for value in values:
        of.sum += value
        sums.end_slot()
    np.testing.assert_array_equal(of.sum, tree(values))
    assert of.most <= math.log2(slots) + 1
    if slots > 2:  # so the order matters here
        assert (np.add.reduce(values) != tree(values)).any()


@pytest.mark.parametrize("slots, processes", [(16, 1), (16, 2), (16, 16), (1, 1)])
def test_processes_that_share_the_slots_out_are_allowed(slots, processes):
    check_processes(processes, slots)


@pytest.mark.parametrize("slots, processes", [(16, 3), (16, 32), (1, 2)])
def test_processes_that_do_not_are_refused_by_name(slots, processes):
    with pytest.raises(BadInput, match=rf"\[run\] processes = {processes}: .*\[training\] slots, "
                                       rf"which is {slots}"):
        check_processes(processes, slots)
