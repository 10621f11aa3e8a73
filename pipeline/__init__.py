"""The batch job: Luigi tasks over plain functions, from a text file to a perplexity.

The tasks are imported here, so that ``luigi --module pipeline EvaluatePerplexity`` finds them.
"""

import sys

from model import environment

if sys.argv[0] == "-m":  # python -m pipeline, of which nothing else is imported yet
    environment.isolate("pipeline")

from pipeline.tasks import EvaluatePerplexity, WriteReport  # noqa: E402

__all__ = ["EvaluatePerplexity", "WriteReport"]
