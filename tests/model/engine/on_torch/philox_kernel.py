"""Random numbers of any counter, for the known answers: `dropout` has tensors' places only."""

import triton
import triton.language as tl

from model.engine.on_torch.gate_kernels import number


@triton.jit(do_not_specialize=["c0", "c1", "c2", "c3", "k0", "k1"])
def write_philox(to, c0, c1, c2, c3, k0, k1):
    words = tl.philox_impl(number(c0), number(c1), number(c2), number(c3), number(k0), number(k1))
    for n in tl.static_range(4):
        tl.store(to + n, words[n].to(tl.int64))
