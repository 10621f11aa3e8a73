"""Kills a job at every one of its writes, each time in a process of its own, and runs it again.

``python every.py data|training|report FOLDER``: a copy of the job is made for each moment by a
fork, so that nothing is imported or compiled twice. Prints how many moments there were, as the last
line.
"""

import contextlib
import os
import shutil
import signal
import sys
import traceback
from pathlib import Path
from unittest import mock

from sitecustomize import watch

from tests import jobs


def fork(function, *arguments):
    """Call a function in a copy of this process; returns how the copy ended."""
    process = os.fork()
    if process == 0:
        try:
            function(*arguments)
        except BaseException:
            traceback.print_exc()
            os._exit(1)
        os._exit(0)
    return os.waitpid(process, 0)[1]


def kill_at_every_write(run, folder, results, prepare=lambda work: None):
    """Call ``run(folder / name)`` uninterrupted, and killed at each write and run again."""
    prepare(folder / "uninterrupted")
    assert fork(run, folder / "uninterrupted") == 0
    expected = results(folder / "uninterrupted")
    number = 0
    while True:
        work = folder / str(number)
        prepare(work)
        ended = fork(killed, run, work, number)
        if os.WIFEXITED(ended):
            assert os.WEXITSTATUS(ended) == 0
            assert results(work) == expected
            return number
        assert os.WTERMSIG(ended) == signal.SIGKILL
        unfinished = sorted(work.rglob(".*.tmp"))
        assert fork(run, work) == 0, f"after a kill at write {number}, {unfinished}"
        assert results(work) == expected, f"after a kill at write {number}, {unfinished}"
        number += 1


def killed(run, work, number):
    """Run, and die at write, sync or renaming `number`, from 0."""
    left = number

    def before(event):
        nonlocal left
        if left == 0:
            os.kill(os.getpid(), signal.SIGKILL)
        left -= 1

    watch(before)
    run(work)


def data(folder):
    """The stages before the training, in one process."""
    from model.system.files import sweep_temporaries

    job = jobs.Job(folder, train=60)
    jobs.write(job.valid, jobs.sentences(20, seed=2))
    jobs.write(job.test, jobs.sentences(20, seed=3))

    def run(work):
        job.work = work
        sweep_temporaries(work)
        job.build()
        assert not list(work.rglob(".*.tmp"))

    return kill_at_every_write(run, folder, jobs.results)


def training(folder):
    """The training, with a checkpoint after every update."""
    from model import training as module
    from model.configuration import NetworkConfig, TrainingConfig
    from model.data.vocabulary import read_vocabulary
    from model.engine import open_device
    from pipeline import settings, tasks

    job = jobs.Job(folder, train=60)
    job.set("training", max_epochs=1)
    assert fork(job.build) == 0
    encoded = job.root(tasks.EncodeCorpus)
    vocabulary = read_vocabulary(job.root(tasks.BuildVocabulary).artifact().path)
    network = NetworkConfig(**settings.values(settings.network))
    config = TrainingConfig(**settings.training_values())
    # Compiled once, here, and run only in copies of this process.
    trainer = module.Trainer(network, config, len(vocabulary.words), open_device("cpu"))
    module.Trainer = lambda *_: trainer

    def run(work):
        module.train(module.TrainingJob(
            folder=work / "models" / "model", vocabulary=vocabulary, network=network,
            train_shards=[Path(path) for path in encoded.shard_files("train")],
            valid_shards=[Path(path) for path in encoded.shard_files("valid")],
            training=config, tokenization={}, source="", checkpoint_minutes=0))

    return kill_at_every_write(run, folder, jobs.results)


def report(folder):
    """Evaluation and report, in one process, of a model that is there."""
    from model import __main__ as commands
    from model import inference
    from model import network as module
    from model.checkpoint import read_checkpoint
    from model.system.files import publish, sweep_temporaries
    from pipeline import tasks
    from pipeline.report import plots

    job = jobs.Job(folder, train=60)
    job.set("training", max_epochs=1)
    assert fork(job.build, tasks.TrainModel) == 0
    trained = job.work
    # Compiled once, here, and run only in copies of this process.
    model = job.root(tasks.TrainModel).artifact().path
    network = inference.load_network(read_checkpoint(model))
    functions = module.compile_log_probabilities(network), module.compile_next_word(network)
    inference.load_network = lambda checkpoint, device: network
    module.compile_log_probabilities = lambda network: functions[0]
    module.compile_next_word = lambda network: functions[1]

    def run_here(command, content, job_file, say, launch=None):
        with publish(job_file) as temporary:
            temporary.write_text(commands.json.dumps(content))
        assert commands.main([command, str(job_file)]) == 0
        return {}

    tasks.run_model_command = run_here

    # Drawing takes longer than all else; the files are written as ever.
    @contextlib.contextmanager
    def sketch(self, name, xlabel, ylabel, into, _size=None):
        yield mock.MagicMock()
        figure = mock.Mock(savefig=lambda buffer, **_: buffer.write(f"<svg>{name}</svg>"))
        into[name] = self._save(figure, name, name)

    plots.Plots._axes = sketch

    def run(work):
        job.work = work
        sweep_temporaries(work)
        job.build(tasks.WriteReport)
        assert not list(work.rglob(".*.tmp"))

    def results(work):
        drawn = (work / "report" / "plots").glob("*.svg")
        return {**jobs.results(work), **{path.name: path.read_bytes() for path in drawn}}

    return kill_at_every_write(run, folder, results, lambda work: shutil.copytree(trained, work))


if __name__ == "__main__":
    print({"data": data, "training": training, "report": report}[sys.argv[1]](Path(sys.argv[2])))
