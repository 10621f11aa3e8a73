"""All that knows Theano's inside, the hardware or compiled code: to be imported before Theano.

Importing the package makes Theano 1.0.5 and Lasagne 0.1 run on this Python (`remedies`).
"""

from model.engine import remedies  # noqa: F401
