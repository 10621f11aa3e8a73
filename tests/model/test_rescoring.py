"""N-best lists in a new order: scores by the equations, formats as others write them, bad lines."""

import gzip
import json
import re

import numpy as np
import pytest

from model import rescoring
from model.data.nbest import NBestLists
from model.data.vocabulary import Vocabulary
from model.rescoring import rescore
from tests.model.test_commands import call, made, reference, said  # noqa: F401

# As nbest-to-linear writes words and costs.
KALDI = ["utt-a-1 the lamp burns low", "utt-a-2 The oil is spent .", "utt-a-3",
         "utt-b-1 who ?", "utt-b-2 the lamp burns low"]
AC = [3.5, 2.25, 9.0, 1.5, 1.25]
# As moses writes them, before and after its features were named anew.
MOSES = ["0 ||| the lamp burns low ||| d: 0 -5.56 lm: -36.1 tm: -39.7 w: -4 ||| -9.2298",
         "0 ||| a lamp . ||| d: -10 -2.3 lm: -31.58 tm: -42.3 w: -3 ||| -9.26197 ||| 0-0 1-1",
         "1 ||| who ? ||| Distortion0= -2 LM0= -12.5 ||| -3.5",
         "1 |||  ||| Distortion0= 0 LM0= -2.5 ||| -7.5"]


@pytest.fixture
def lists(tmp_path):
    """A function that writes a file of lines; its path."""
    def write(name, lines):
        (tmp_path / name).write_text("".join(f"{line}\n" for line in lines))
        return tmp_path / name

    return write


@pytest.fixture
def costs(lists):
    return lists("ac", [f"{line.split()[0]} {cost}" for line, cost in zip(KALDI, AC)])


def run(capsys, made, *arguments):  # noqa: F811
    code, output, error = call(capsys, "rescore", "--model", made["model"], *arguments)
    assert (code, said(error)) == (0, "")
    return output.splitlines()


def expected(made, text):  # noqa: F811
    return reference(made, text.lower().split()).sum()


def test_the_model_ranks_by_its_log_probabilities(capsys, made, lists):  # noqa: F811
    path = lists("text", KALDI)
    texts = {line.split()[0]: line.partition(" ")[2] for line in KALDI}
    by_model = {name: expected(made, text) for name, text in texts.items()}
    best = [max((name for name in by_model if name.startswith(f"{utterance}-")), key=by_model.get)
            for utterance in ("utt-a", "utt-b")]
    assert run(capsys, made, path) == [
        f"{name.rpartition('-')[0]} {texts[name]}".strip() for name in best]
    costs_to = path.with_name("lm")
    every = run(capsys, made, path, "--all", "--costs-to", costs_to)
    wanted = sorted(by_model, key=lambda name: (name[:5], -by_model[name]))
    assert [line.split()[0] for line in every] == wanted
    written = [line.split() for line in costs_to.read_text().splitlines()]
    assert [name for name, _ in written] == list(texts)
    np.testing.assert_allclose([float(cost) for _, cost in written],
                               [-value for value in by_model.values()], rtol=1e-4)


@pytest.mark.parametrize("per_token", [False, True])
def test_the_combined_score_is_the_weighted_sum(capsys, made, lists, costs, per_token):  # noqa: F811
    path = lists("text", KALDI)
    texts = [line.partition(" ")[2] for line in KALDI]
    values = []
    for text, cost in zip(texts, AC):
        of_model = expected(made, text) / (len(text.split()) + 1 if per_token else 1)
        values.append(0.75 * of_model - 0.5 * cost + 0.25 * len(text.split()))
    names = [line.split()[0] for line in KALDI]
    wanted = sorted(zip(names, values), key=lambda pair: (pair[0][:5], -pair[1]))
    found = run(capsys, made, path, "--all", "--costs", f"ac={costs}", "--weight", "ac=0.5",
                "--weight", "words=0.25", "--weight", "model=0.75",
                *(["--per-token"] if per_token else []))
    assert [line.split()[0] for line in found] == [name for name, _ in wanted]
    as_json = lists("json", [json.dumps({"id": name[:5], "text": text, "ac": -cost, "more": [1]})
                             for name, text, cost in zip(names, texts, AC)])
    rows = [json.loads(line) for line in run(
        capsys, made, as_json, "--all", "--weight", "ac=0.5", "--weight", "words=0.25",
        "--weight", "model=0.75", *(["--per-token"] if per_token else []))]
    np.testing.assert_allclose([row["combined"] for row in rows],
                               [value for _, value in wanted], rtol=1e-5)
    assert all(row["more"] == [1] for row in rows)
    assert rows[0]["model"] == pytest.approx(expected(made, rows[0]["text"]), rel=1e-5)


def test_moses_lists_keep_their_form(capsys, made, lists):  # noqa: F811
    path = lists("nbest", MOSES)
    found = run(capsys, made, path, "--all", "--weight", "total=1", "--weight", "model=0")
    assert [line.split(" ||| ")[:2] for line in found] == [
        ["0", "the lamp burns low"], ["0", "a lamp ."], ["1", "who ?"], ["1", ""]]
    fields = found[1].split(" ||| ")
    assert re.fullmatch(r"d: -10 -2.3 lm: -31.58 tm: -42.3 w: -3 model= -\d+\.\d{4}", fields[2])
    assert fields[3:] == ["-9.2620", "0-0 1-1"]
    assert float(fields[2].split()[-1]) == pytest.approx(expected(made, "a lamp ."), abs=1e-3)
    # Each feature and each of its values has a name; what was written can be read again.
    again = lists("again", found[:2])
    best, = run(capsys, made, again, "--weight", "d.1=-1", "--weight", "model=0")
    assert best.startswith("0 ||| a lamp . |||") and " ||| 10.0000 |||" in best


def test_a_table_keeps_its_columns(capsys, made, lists):  # noqa: F811
    path = lists("table", ["ac\tid\ttext\tnote", "1.5\tu\tthe lamp\tx", "2.5\tu\twho ?\ty",
                           "0\tv\t\t"])
    header, *rows = [line.split("\t") for line in run(
        capsys, made, path, "--weight", "model=0", "--weight", "ac=2")]
    assert header == ["ac", "id", "text", "note", "model", "combined"]
    assert [row[:4] for row in rows] == [["2.5", "u", "who ?", "y"], ["0", "v", "", ""]]
    assert [row[5] for row in rows] == ["5.0000", "0.0000"]
    assert float(rows[1][4]) == pytest.approx(expected(made, ""), abs=1e-3)


def test_compressed_lists_and_standard_input_are_read(capsys, made, lists, monkeypatch):  # noqa: F811
    path = lists("text", KALDI)
    packed = path.with_suffix(".gz")
    packed.write_bytes(gzip.compress(path.read_bytes()))
    wanted = run(capsys, made, path)
    assert run(capsys, made, packed) == wanted
    with open(path) as stream:
        monkeypatch.setattr("sys.stdin", stream)
        assert run(capsys, made, "-") == wanted
    assert run(capsys, made, lists("empty", [])) == []


def test_equal_hypotheses_are_computed_once_and_lists_one_chunk_after_the_other(monkeypatch):
    vocabulary = Vocabulary(("</s>", "<s>", "<unk>", "a", "b"), (1, 1, 1, 1, 1))
    monkeypatch.setattr(rescoring, "_PER_CHUNK", 5)
    read, computed = [], []

    def lines():
        for number in range(1, 13):
            read.append(number)
            yield number, f"u{(number - 1) // 3}-{number} {['a b', 'B  a', 'a b'][number % 3]}"

    def log_probabilities(batches):
        for inputs, targets in batches:
            computed.append(len(inputs))
            yield -np.arange(targets.size).reshape(targets.shape) / 10

    found = rescore(NBestLists(lines(), "x"), log_probabilities, vocabulary,
                    weights={"model": 1, "words": 0}, per_token=False, lowercase=True)
    first = next(found)
    # Two lists, and the hypothesis that tells that the second has ended.
    assert read == [1, 2, 3, 4, 5, 6, 7] and len(first) == 3
    rest = list(found)
    assert len(rest) == 3 and read[-1] == 12
    # Cleaned texts that differ in case are two; each chunk has "a b" and "B  a" once.
    assert sum(computed) == 4


@pytest.mark.parametrize("form, lines, message", [
    ("kaldi", ["u-1 a", "nonumber a"], "line 2: 'nonumber a' does not begin with the name"),
    ("kaldi", ["-1 a"], "line 1: '-1 a' does not begin with the name"),
    ("moses", ["0 ||| a ||| lm: -1 ||| -2", "0 ||| a ||| lm: -1"], "line 2: '0 ||| a ||| lm: -1' "
     "is not id"),
    ("moses", ["0 ||| a ||| 3 ||| -2"], "line 1: the feature '3' has no name"),
    ("moses", ["0 ||| a ||| lm: x ||| -2"], "line 1: the score lm is 'x', which is no number"),
    ("moses", ["0 ||| a ||| tm: 1 ||| -2"], "line 1: there is no score lm; it has: tm, total"),
    ("tsv", ["id\ttxt\tlm"], "line 1: the names of the columns must hold text once"),
    ("tsv", ["id\ttext\tlm", "u\ta\t1", "u\tb"], "line 3: it has 2 columns, and the first line"),
    ("tsv", ["id\ttext\tlm", "u\ta\tnan"], "line 2: the score lm is 'nan', which is no number"),
    ("json", ['{"id": "u", "text": "a", "lm": 1}', "{"], "line 2: it is no JSON"),
    ("json", ['{"id": "u", "lm": 1}'], "line 1: it is no object with id"),
    ("json", ['{"id": "u", "text": "a", "lm": "1x"}'], "line 1: there is no score lm"),
])
def test_a_bad_line_is_one_clear_error(capsys, made, lists, form, lines, message):  # noqa: F811
    path = lists("lists", lines)
    code, _, error = call(capsys, "rescore", path, "--model", made["model"], "--format", form,
                          *([] if form == "kaldi" else ["--weight", "lm=1"]))
    assert code == 1 and said(error).startswith(f"error: {path}, {message}"), error
    assert said(error).count("\n") == 1


def test_bytes_that_are_no_text_are_told_with_their_line(capsys, made, tmp_path):  # noqa: F811
    for content, message in ((b"u-1 a\nu-2 \xff\n", "line 2: not valid UTF-8"),
                             (b"u-1 a\0\n", "line 1: it holds a NUL byte"),
                             (b"u-1 " + b"a " * 20_000, "line 1: it is longer than 32,768")):
        (tmp_path / "text").write_bytes(content)
        code, _, error = call(capsys, "rescore", tmp_path / "text", "--model", made["model"])
        assert code == 1 and said(error).startswith(f"error: {tmp_path}/text, {message}")


@pytest.mark.parametrize("change, message", [
    (lambda lines: lines[:-1], "ac: it has no line for utt-b-2, which stands in .*text, line 5"),
    (lambda lines: [*lines, "utt-c-1 3"], "ac, line 6: .*text has no more hypotheses"),
    (lambda lines: [lines[1], lines[0], *lines[2:]], "ac, line 1: the cost of utt-a-1 is wanted"),
    (lambda lines: ["utt-a-1 x", *lines[1:]], "ac, line 1: 'x' is no cost"),
])
def test_costs_belong_to_the_hypotheses(capsys, made, lists, costs, change, message):  # noqa: F811
    path = lists("text", KALDI)
    costs.write_text("".join(f"{line}\n" for line in change(costs.read_text().splitlines())))
    code, _, error = call(capsys, "rescore", path, "--model", made["model"], "--costs",
                          f"ac={costs}", "--weight", "ac=1")
    assert code == 1 and re.match(f"error: .*{message}", said(error)), error


def test_options_that_make_no_sense_are_refused(capsys, made, lists, costs):  # noqa: F811
    for option in ("--weight=ac", "--weight=ac=x", "--weight=ac=inf", "--weight==1", "--costs=ac"):
        with pytest.raises(SystemExit):
            call(capsys, "rescore", "x", option)
        assert "is not name=value" in capsys.readouterr().err
    code, _, error = call(capsys, "rescore", lists("nbest", MOSES), "--model", made["model"],
                          "--costs", f"ac={costs}")
    assert code == 1 and "files of costs belong to Kaldi's lists" in error


def test_a_file_of_costs_is_published_whole_or_not_at_all(capsys, made, lists):  # noqa: F811
    path = lists("text", [*KALDI, "broken"])
    code, _, _ = call(capsys, "rescore", path, "--model", made["model"],
                      "--costs-to", path.with_name("lm"))
    assert code == 1 and not path.with_name("lm").exists()
    assert sorted(each.name for each in path.parent.iterdir()) == ["text"]
