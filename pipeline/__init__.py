"""The batch job: Luigi tasks over plain functions, from a text file to a perplexity.

The tasks are imported here, so that ``luigi --module pipeline EvaluatePerplexity`` finds them.
"""

from pipeline.tasks import EvaluatePerplexity, WriteReport

__all__ = ["EvaluatePerplexity", "WriteReport"]
