"""Every setting, as Luigi's configuration classes; luigi.cfg gives the values and their reasons."""

from __future__ import annotations

import functools
import os
from pathlib import Path

import luigi
import luigi.interface

# A setting of Luigi's that Luigi takes for a mistake, and warns of.
luigi.interface.core.ignore_unconsumed.add("rpc_retry_wait")

DEFAULT_CORPUS = "data/kjv.txt"


def work_folder() -> str:
    """The working folder: the environment variable ``PIPELINE_WORK``, or ``data/work``.

    In full: the daemon may serve several checkouts, and must not take their tasks for the same.

    A variable and no setting, because Theano's compile cache follows it too, and is needed before
    any configuration is read.
    """
    return os.path.abspath(os.environ.get("PIPELINE_WORK") or "data/work")


class corpus(luigi.Config):
    """Section [corpus]."""

    path = luigi.Parameter()
    valid = luigi.Parameter()
    test = luigi.Parameter()
    format = luigi.Parameter()
    on_bad_line = luigi.Parameter()
    valid_share = luigi.FloatParameter()
    test_share = luigi.FloatParameter()
    sentences_per_part = luigi.IntParameter()
    max_line_bytes = luigi.IntParameter()


class download(luigi.Config):
    """Section [download]."""

    size = luigi.IntParameter()
    sha256 = luigi.Parameter()


class tokens(luigi.Config):
    """Section [tokens]."""

    lowercase = luigi.BoolParameter(parsing=luigi.BoolParameter.EXPLICIT_PARSING)


class vocabulary(luigi.Config):
    """Section [vocabulary]."""

    size = luigi.IntParameter()
    minimum_count = luigi.IntParameter()
    word_list = luigi.Parameter()


class network(luigi.Config):
    """Section [network]; the fields of `model.network.NetworkConfig`."""

    num_units = luigi.IntParameter()
    num_layers = luigi.IntParameter()
    grad_clipping = luigi.FloatParameter()
    peepholes = luigi.BoolParameter(parsing=luigi.BoolParameter.EXPLICIT_PARSING)
    learn_init = luigi.BoolParameter(parsing=luigi.BoolParameter.EXPLICIT_PARSING)
    dropout = luigi.FloatParameter()
    recurrence = luigi.Parameter()


class training(luigi.Config):
    """Section [training]; the fields of `model.training.TrainingConfig`, and two of the job."""

    optimiser = luigi.Parameter()
    rate = luigi.FloatParameter()
    window = luigi.IntParameter()
    denominator = luigi.Parameter()
    micro_batch_sentences = luigi.IntParameter()
    micro_batch_tokens = luigi.IntParameter()
    max_epochs = luigi.IntParameter()
    max_minutes = luigi.FloatParameter()
    cooldown = luigi.FloatParameter()
    validations_per_epoch = luigi.IntParameter()
    patience = luigi.IntParameter()
    shards_in_memory = luigi.IntParameter()
    seed = luigi.IntParameter()
    checkpoint_minutes = luigi.FloatParameter()
    warm_start = luigi.Parameter()


# These are no fields of the training's own configuration.
_OF_THE_JOB = ("checkpoint_minutes", "warm_start")


class run(luigi.Config):
    """Section [run]."""

    workers = luigi.IntParameter()
    scheduler = luigi.ChoiceParameter(choices=["daemon", "local"])
    port = luigi.IntParameter()


def values(section: type[luigi.Config]) -> dict:
    """A section's values by name, as JSON can hold them; read once in a process."""
    return dict(_values(section))


@functools.cache
def _values(section: type[luigi.Config]) -> dict:
    return section().param_kwargs


def training_values() -> dict:
    """The fields of `model.training.TrainingConfig`."""
    return {name: value for name, value in values(training).items()
            if name not in _OF_THE_JOB}


def profile_file(name: str) -> Path:
    """The file of a named profile: settings that go before those of luigi.cfg."""
    return Path(__file__).parent / "profiles" / f"{name}.cfg"
