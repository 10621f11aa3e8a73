"""Speed and memory of training and preparation, measured; see docs/performance.md.

Everything that is timed runs in a process of its own (`benchmarks.worker`): Theano and PyTorch
bring OpenMP and BLAS libraries that disturb each other, and a peak of memory is that of a process.
"""
