"""The batch job: Luigi tasks over plain functions, from a text file to a perplexity.

The tasks are imported here, so that ``luigi --module pipeline EvaluatePerplexity`` finds them.
"""

import sys

from pipeline import settings  # before Luigi, which would read files by itself
from pipeline.tasks import EvaluatePerplexity, WriteReport

__all__ = ["EvaluatePerplexity", "WriteReport"]

if "luigi.cmdline" in sys.modules:  # Luigi's own command: none of ours looks at the settings
    settings.load_or_exit()
