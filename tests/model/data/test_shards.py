"""Shards against a naive reading of the sentences, and against scipy's view of the matrix."""

import collections
import hashlib

import h5py
import numpy as np
import pytest
import scipy.sparse
from hypothesis import given, settings
from hypothesis import strategies as st

from model.data import shards
from model.data.shards import ShardReader, load, write_shard
from model.data.vocabulary import Vocabulary
from model.system.errors import DamagedFile, UserError
from model.system.hdf5 import open_hdf5, write_hdf5
from pipeline.tokens import write_tokens

VOCABULARY = Vocabulary(("the", "<unk>", "</s>", "<s>", "light", "and", "."), (9, 8, 7, 7, 5, 4, 3))
SENTENCES = [
    "And the light .",
    "Jesus wept .",
    "the the the the",
    "\x01",  # no token at all
    "and God said , Let there be light",
    "Rejoice evermore .",
    "Jesus wept .",
]


def write(folder, name, sentences, vocabulary=VOCABULARY, **attributes):
    (folder / f"{name}.txt").write_text("".join(f"{s}\n" for s in sentences))
    write_tokens(folder / f"{name}.txt", folder / f"{name}.tokens.h5", lowercase=True)
    path = folder / f"{name}.h5"
    write_shard(folder / f"{name}.tokens.h5", vocabulary, path, **attributes)
    return path


def naive(sentences, vocabulary=VOCABULARY):
    """By number of steps the inputs and targets, in the order that a shard promises."""
    index = {word: place for place, word in enumerate(vocabulary.words)}
    keyed = []
    for sentence in sentences:
        # The tests' sentences have spaces between all tokens.
        words = [w for w in sentence.lower().split() if w != "\x01"]
        row = [index["<s>"], *(index.get(word, index["<unk>"]) for word in words), index["</s>"]]
        digest = hashlib.blake2b(sentence.encode(), digest_size=8).digest()
        keyed.append((int.from_bytes(digest, "little"), row))
    groups = collections.defaultdict(list)
    for _, row in sorted(keyed, key=lambda pair: pair[0]):
        groups[len(row) - 1].append(row)
    return {
        steps: (np.array(rows)[:, :-1], np.array(rows)[:, 1:])
        for steps, rows in sorted(groups.items())
    }


def check(found, expected):
    for array, wanted in zip(found, expected):
        assert array.dtype == np.int32
        np.testing.assert_array_equal(array, wanted)


WORDS = st.sampled_from(["the", "Light", "and", ".", "darkness", "<", "42", "\x01"])
PARTS = st.lists(
    st.lists(st.lists(WORDS, min_size=1, max_size=6).map(" ".join), min_size=1, max_size=12),
    min_size=1,
    max_size=3,
)


@settings(deadline=None, max_examples=40)
@given(PARTS)
def test_shards_equal_a_naive_reading(tmp_path_factory, parts):
    folder = tmp_path_factory.mktemp("shards")
    paths = [write(folder, str(number), part) for number, part in enumerate(parts)]
    expected = [naive(part) for part in parts]
    reader = ShardReader(paths, VOCABULARY.digest)
    counts = collections.Counter({steps: 0 for part in expected for steps in part})
    for part in expected:
        counts.update({steps: len(inputs) for steps, (inputs, _) in part.items()})
    assert reader.step_counts == counts
    assert list(reader.step_counts) == sorted(counts)
    for steps in counts:
        both = [part[steps] for part in expected if steps in part]
        inputs, targets = (np.concatenate(arrays) for arrays in zip(*both))
        check(reader.sentences(steps), (inputs, targets))
        np.testing.assert_array_equal(reader.one_hot(steps), np.eye(7)[inputs])
    for path, part in zip(paths, expected):
        shard = load(path)
        assert shard.steps.tolist() == list(part)
        for steps, arrays in part.items():
            check((shard.inputs(steps), shard.targets(steps)), arrays)


def test_a_length_that_does_not_occur_is_empty(tmp_path):
    path = write(tmp_path, "part", SENTENCES)
    inputs, targets = ShardReader([path]).sentences(77)
    assert inputs.shape == targets.shape == (0, 77)
    assert ShardReader([path]).one_hot(77).shape == (0, 77, 7)
    assert load(path).inputs(77).shape == (0, 77)
    assert ShardReader([]).step_counts == {}


def test_scipy_opens_the_one_hot_matrix(tmp_path):
    path = write(tmp_path, "part", SENTENCES)
    with open_hdf5(path) as file:
        group = file["inputs"]
        arrays = tuple(group[name][()] for name in ("data", "indices", "indptr"))
        matrix = scipy.sparse.csr_matrix(arrays, shape=tuple(group.attrs["shape"]))
        # What AnnData's description of the format asks for.
        assert group.attrs["encoding-type"] == "csr_matrix"
        assert group.attrs["encoding-version"] == "0.1.0"
        assert set(group) == {"data", "indices", "indptr"}
        assert group["data"].dtype == np.float32
        assert group["indices"].dtype == np.uint16
        # Only the indices take room.
        assert group["data"].id.get_storage_size() == 0
        assert group["indices"].id.get_storage_size() == 2 * len(group["indices"])
    matrix.check_format()
    rows = np.concatenate([inputs.ravel() for inputs, _ in naive(SENTENCES).values()])
    assert matrix.shape == (len(rows), 7)
    assert matrix.dtype == np.float32
    np.testing.assert_array_equal(matrix.toarray(), np.eye(7)[rows])


def test_the_attributes_describe_the_shard(tmp_path):
    path = write(tmp_path, "part", SENTENCES, maker="test")
    with open_hdf5(path) as file:
        attributes = dict(file.attrs)
        digest = hashlib.sha256(file["inputs/indices"][()].tobytes()).hexdigest()
    assert attributes.pop("steps").tolist() == [1, 4, 5, 9]
    assert attributes.pop("offsets").tolist() == [0, 1, 13, 23, 32]
    assert attributes == {
        "format_version": 1,
        "vocabulary_digest": VOCABULARY.digest,
        "vocabulary_size": 7,
        "start": 3,
        "end": 2,
        "sentences": 7,
        "tokens": 32,
        "indices_sha256": digest,
        "maker": "test",
    }


def test_many_rows_take_little_more_than_their_indices(tmp_path):
    path = write(tmp_path, "part", [f"the light {'and ' * (n % 50)}." for n in range(20_000)])
    rows = load(path).indices.size
    assert 2 * rows < path.stat().st_size < 2.1 * rows


def test_very_many_lengths_fit(tmp_path):
    # More than the 64 KiB that HDF5 once allowed for attributes.
    sentences = ["the " * n + "." for n in range(1, 12_001, 1)][::13]
    path = write(tmp_path, "part", sentences)
    assert load(path).step_counts == {len(s.split()) + 1: 1 for s in sentences}


def test_a_large_vocabulary_takes_32_bits(tmp_path):
    words = (*VOCABULARY.words, *(f"{n}" for n in range(1 << 16)))
    vocabulary = Vocabulary(words, tuple(range(len(words)))[::-1])
    sentences = ["the 65535 65530", "0 light"]
    path = write(tmp_path, "part", sentences, vocabulary)
    assert load(path).indices.dtype == np.uint32
    for steps, arrays in naive(sentences, vocabulary).items():
        check(ShardReader([path]).sentences(steps), arrays)


def test_the_same_tokens_give_the_same_bytes(tmp_path):
    paths = []
    for name in ("a", "b"):
        (tmp_path / name).mkdir()
        paths.append(write(tmp_path / name, "part", SENTENCES))
    assert paths[0].read_bytes() == paths[1].read_bytes()


# Failures


@pytest.mark.parametrize("read", [load, lambda path, *digest: ShardReader([path], *digest)])
def test_faulty_shards_are_errors_that_name_the_file(tmp_path, read):
    path = write(tmp_path, "part", SENTENCES)
    with pytest.raises(UserError, match=f"{path} was made with another vocabulary"):
        read(path, "0" * 64)
    with pytest.raises(DamagedFile, match=r"part.tokens.h5.* no shard"):
        read(tmp_path / "part.tokens.h5")
    with pytest.raises(UserError, match="cannot read the shard .*nothing.h5"):
        read(tmp_path / "nothing.h5")
    whole = path.read_bytes()
    for place in (0, 600, len(whole) // 2, len(whole) - 1):
        content = bytearray(whole)
        content[place] ^= 4
        path.write_bytes(content)
        with pytest.raises(DamagedFile, match=f"{path} is damaged"):
            read(path)
    path.write_bytes(whole[:-100])
    with pytest.raises(DamagedFile, match=f"{path} is damaged"):
        read(path)


def test_a_shard_of_another_format_version_is_an_error(tmp_path, monkeypatch):
    monkeypatch.setattr(shards, "FORMAT_VERSION", 2)
    path = write(tmp_path, "part", SENTENCES)
    monkeypatch.undo()
    with pytest.raises(UserError, match=f"{path} has format version 2.* reads version 1"):
        load(path)


def test_shards_of_different_vocabularies_do_not_mix(tmp_path):
    other = Vocabulary(VOCABULARY.words[::-1], VOCABULARY.counts[::-1])
    paths = [write(tmp_path, "a", SENTENCES), write(tmp_path, "b", SENTENCES, other)]
    with pytest.raises(UserError, match="b.h5 was made with another vocabulary"):
        ShardReader(paths)


def test_a_shard_that_is_gone_when_it_is_wanted_is_an_error(tmp_path):
    path = write(tmp_path, "part", SENTENCES)
    reader = ShardReader([path])
    path.unlink()
    with pytest.raises(DamagedFile, match="part.h5"):
        reader.sentences(4)
    with h5py.File(path, "w"), pytest.raises(DamagedFile, match="part.h5"):
        reader.sentences(4)


def test_damaged_tokens_are_an_error_and_no_shard_is_published(tmp_path):
    with write_hdf5(tmp_path / "tokens.h5") as file:
        file["types"] = np.arange(9)
    (tmp_path / "tokens.h5").write_bytes((tmp_path / "tokens.h5").read_bytes()[:-1])
    with pytest.raises(DamagedFile, match="tokens.h5"):
        write_shard(tmp_path / "tokens.h5", VOCABULARY, tmp_path / "shard.h5")
    assert not (tmp_path / "shard.h5").exists()
