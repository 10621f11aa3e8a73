"""All that knows Theano's inside, the hardware or compiled code; to be imported before Theano.

Importing it makes Theano 1.0.5 and Lasagne 0.1 run on this Python. The rest of the project uses
what is listed here, and nothing else of what lies in this folder (but `benchmarks`, which takes the
time of each call of the compiled library):

Device, PROCESSOR, open_device
    What functions are compiled for, and the one that there always is.
CannotCompile
    The error of a network that cannot be compiled, in one line.
accumulate
    Expressions for accumulators plus gradients, added in place where they can be.
available
    Why the compiled library cannot be used here, or None.
count_cards
    How many graphics cards there are.
dropout
    Dropout whose masks are a function of seed, update, sentence, step and unit.
load_openblas
    The BLAS that Theano's compiled code calls.
lstm_sequence
    A whole LSTM layer over all steps, in one Op.
softmax_crossentropy
    A softmax layer with its loss, in one Op.
update_in_one_pass, squares_before, sum_of_squares
    An update of all arrays of a parameter in one Op, and what is known of its sum.
"""

from model.engine import remedies  # noqa: F401  isort: skip

from model.engine.blas import load_openblas
from model.engine.compilation import CannotCompile
from model.engine.device import PROCESSOR, Device, count_cards, open_device
from model.engine.dropout_op import dropout
from model.engine.lstm_op import lstm_sequence
from model.engine.native import available
from model.engine.softmax_op import softmax_crossentropy
from model.engine.update_op import squares_before, sum_of_squares, update_in_one_pass
from model.engine.weights_gradient import accumulate

__all__ = ["PROCESSOR", "CannotCompile", "Device", "accumulate", "available", "count_cards",
           "dropout", "load_openblas", "lstm_sequence", "open_device", "softmax_crossentropy",
           "squares_before", "sum_of_squares", "update_in_one_pass"]
