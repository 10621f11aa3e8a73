"""What all tests share: one compile cache for all runs, double precision where it is asked for."""

import os
import subprocess

os.environ.setdefault("PIPELINE_WORK", "data/test-work")
# Processes that tests start get what the tests say, and what the developer's shell says but this.
os.environ["PIPELINE_ENVIRONMENT"] = "keep"
os.environ.pop("THEANO_FLAGS", None)

import numpy as np  # noqa: E402
import pytest  # noqa: E402
from hypothesis import settings  # noqa: E402

# A test on a busy machine is slow, not wrong.
settings.register_profile("untimed", deadline=None)
settings.load_profile("untimed")


@pytest.fixture(scope="module")
def float64():
    """Theano and Lasagne in double precision, and any failed rewrite of a graph an error."""
    from model import engine  # noqa: F401  isort: skip
    import theano

    with theano.configparser.change_flags(floatX="float64", on_opt_error="raise"):
        yield


@pytest.fixture(scope="session")
def torch_installed():
    return pytest.importorskip("torch", reason="PyTorch is not there; make test-extras installs it")


@pytest.fixture(scope="module", params=[
    "cpu", pytest.param("torch-cpu", marks=pytest.mark.extras),
    pytest.param("cuda", marks=pytest.mark.card)])
def device(request):
    """Each way of computing that there can be here."""
    if request.param != "cpu":
        torch = request.getfixturevalue("torch_installed")
        if request.param == "cuda" and not torch.cuda.is_available():
            pytest.skip("there is no graphics card")
    from model.engine import open_device

    return open_device(request.param)


@pytest.fixture
def random():
    return np.random.default_rng(20130801)


@pytest.fixture
def full_disk(tmp_path):
    """A function that mounts a disk of so many KiB; skipped where that is not allowed."""
    mounted = []

    def mount(size):
        folder = tmp_path / f"{size} KiB"
        folder.mkdir()
        if subprocess.run(["mount", "-t", "tmpfs", "-o", f"size={size}k", "tmpfs", str(folder)],
                          capture_output=True).returncode:
            pytest.skip("mounting is not allowed here")
        mounted.append(folder)
        return folder

    yield mount
    for folder in mounted:
        subprocess.run(["umount", str(folder)], check=True)


@pytest.fixture(scope="session")
def make_shards():
    """A function that runs sentences through the real stages: tokens, vocabulary, shards."""
    from model.data.shards import write_shard
    from pipeline.tokens import read_types, write_tokens
    from pipeline.vocabulary import build_vocabulary

    def make(folder, parts, size=2000):
        folder.mkdir(parents=True, exist_ok=True)
        tokens = []
        for number, sentences in enumerate(parts):
            text = folder / f"part{number}.txt"
            text.write_text("".join(f"{sentence}\n" for sentence in sentences))
            tokens.append(folder / f"tokens{number}.h5")
            write_tokens(text, tokens[-1], lowercase=True)
        vocabulary = build_vocabulary(
            map(read_types, tokens), sum(map(len, parts)), scratch=folder / "words", size=size,
            minimum_count=1)
        shards = [folder / f"shard{number}.h5" for number in range(len(parts))]
        for source, shard in zip(tokens, shards):
            write_shard(source, vocabulary, shard)
        return shards, vocabulary

    return make
