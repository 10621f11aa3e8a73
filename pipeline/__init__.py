"""The batch job: Luigi tasks over plain functions, from a text file to a perplexity."""
