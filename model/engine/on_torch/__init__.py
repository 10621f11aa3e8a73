"""Theano's graphs carried out on PyTorch's tensors; imported only where a device asks for it."""
