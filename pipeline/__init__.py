"""The batch job: Luigi tasks over plain functions, from a text file to a perplexity.

The tasks are imported here, so that ``luigi --module pipeline EvaluatePerplexity`` finds them.
"""

import sys

from model.system import environment

if sys.argv[0] == "-m":  # python -m pipeline, of which nothing else is imported yet
    environment.isolate("pipeline")

# Before Luigi, which would read files by itself.
from pipeline import settings  # noqa: E402
from pipeline.tasks import EvaluatePerplexity, WriteReport  # noqa: E402

__all__ = ["EvaluatePerplexity", "WriteReport"]

if "luigi.cmdline" in sys.modules:  # Luigi's own command: none of ours looks at the settings
    settings.load_or_exit()
