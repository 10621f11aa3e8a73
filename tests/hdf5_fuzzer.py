"""What becomes of HDF5 files whose structures were changed, in a small process that can be forked.

The checksums in the metadata are made right again, as whoever means harm would do. As a program:
``hdf5_fuzzer.py FILE FOLDER COUNT`` changes a shard or a checkpoint so many times, leaves in the
folder each file that crashes its reader, and prints how often reading ended how.

References
----------
B. Jenkins: lookup3, http://burtleburtle.net/bob/c/lookup3.c, `hashlittle`. HDF5 File Format
Specification 3.0, sections II.A (superblock) and IV.A (object headers).
"""

import collections
import hashlib
import json
import os
import random
import resource
import sys
from pathlib import Path

from model.checkpoint import FORMAT, read_checkpoint
from model.data.shards import ShardReader
from model.system import hdf5
from model.system.errors import UserError
from model.system.hdf5 import open_hdf5


def _rotated(x, by):
    return (x << by | x >> 32 - by) & 0xFFFFFFFF


def checksum(data):
    state = [(0xDEADBEEF + len(data)) & 0xFFFFFFFF] * 3
    blocks = [data[n:n + 12] for n in range(0, len(data), 12)]
    for block in blocks:
        last = block is blocks[-1]
        for n in range(3):
            word = int.from_bytes(block[4 * n:4 * n + 4], "little")
            state[n] = (state[n] + word) & 0xFFFFFFFF
        a, b, c = 0, 1, 2
        if last:
            for x, y, by in ((c, b, 14), (a, c, 11), (b, a, 25), (c, b, 16), (a, c, 4),
                             (b, a, 14), (c, b, 24)):
                state[x] = ((state[x] ^ state[y]) - _rotated(state[y], by)) & 0xFFFFFFFF
        else:
            for x, y, z, by in ((a, c, b, 4), (b, a, c, 6), (c, b, a, 8), (a, c, b, 16),
                                (b, a, c, 19), (c, b, a, 4)):
                state[x] = ((state[x] - state[y]) & 0xFFFFFFFF) ^ _rotated(state[y], by)
                state[y] = (state[y] + state[z]) & 0xFFFFFFFF
    return state[2]


def blocks(content):
    """Where the blocks with a checksum begin and end in an HDF5 file; it follows their end."""
    found = [(0, 44)]  # the superblock
    for signature in (b"OHDR", b"OCHK", b"FRHP", b"FHDB", b"BTHD", b"BTLF", b"FSHD"):
        begin = -1
        while (begin := content.find(signature, begin + 1)) >= 0:
            end = next((end for end in range(begin + 8, min(begin + 1024, len(content) - 4))
                        if content[end:end + 4] == checksum(
                            content[begin:end]).to_bytes(4, "little")), None)
            if end:
                found.append((begin, end))
    return found


def mutated(content, places, seed):
    """An HDF5 file with some bytes of its structures changed, and their checksums made right."""
    choice = random.Random(seed)
    content = bytearray(content)
    touched = set()
    for _ in range(choice.choice([1, 1, 1, 2, 3])):
        begin, end = choice.choice(places)
        touched.add((begin, end))
        place = choice.randrange(begin + 4, end)
        width = min(choice.choice([1, 1, 2, 4, 8]), end - place)
        content[place:place + width] = choice.choice([
            bytes([content[place] ^ 1 << choice.randrange(8), *content[place + 1:place + width]]),
            bytes(width), b"\xff" * width, choice.randbytes(width),
            choice.randrange(len(content)).to_bytes(8, "little")[:width]])
    for begin, end in touched:
        content[end:end + 4] = checksum(bytes(content[begin:end])).to_bytes(4, "little")
    return bytes(content)


def ended(function):
    """How a function ends in a process of its own: "right", "refused", "faulty", "crashed"."""
    child = os.fork()
    if not child:
        resource.setrlimit(resource.RLIMIT_CPU, (1, 1))
        os.dup2(os.open(os.devnull, os.O_WRONLY), 2)
        try:
            function()
            os._exit(0)
        except UserError:
            os._exit(1)
        except BaseException:
            os._exit(2)
    code = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
    return "crashed" if code < 0 else ("right", "refused", "faulty")[code]


def read(path, is_checkpoint):
    """Read all that the program reads of a file, which must then hold together."""
    if is_checkpoint:
        read_checkpoint(path)
        return
    reader = ShardReader([path])
    for steps in reader.step_counts:
        inputs, targets = reader.sentences(steps)
        assert inputs.max() < reader.layouts[0].vocabulary_size
        assert targets.max() < reader.layouts[0].vocabulary_size


def main(source, folder, count):
    with open_hdf5(source) as file:
        is_checkpoint = file.attrs.get("format") == FORMAT
    content = Path(source).read_bytes()[hdf5._SEAL_BYTES:]
    places = blocks(content)
    ends = collections.Counter()
    for seed in range(count):
        body = mutated(content, places, seed)
        path = folder / f"{seed}.h5"
        path.write_bytes(hdf5._seal(hashlib.sha256(body)) + body)
        end = ended(lambda path=path: read(path, is_checkpoint))
        ends[end] += 1
        if end in ("right", "refused"):
            path.unlink()
    print(json.dumps(ends))


if __name__ == "__main__":
    main(sys.argv[1], Path(sys.argv[2]), int(sys.argv[3]))
