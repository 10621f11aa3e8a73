"""What the files of settings may say, and that all that is wrong in them is told at once."""

import os
import re
import subprocess
import sys
from pathlib import Path

import luigi
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from model.configuration import NetworkConfig, TrainingConfig, rules
from pipeline import settings
from pipeline.settings_listing import listing
from tests.jobs import REPOSITORY, reset_settings


@pytest.fixture(autouse=True)
def restored():
    yield
    config = reset_settings()
    config._interpolation = settings._INTERPOLATION


@pytest.fixture
def file(tmp_path, monkeypatch):
    """A function that writes the file that LUIGI_CONFIG_PATH names; the file."""
    path = tmp_path / "mine.cfg"
    monkeypatch.setenv("LUIGI_CONFIG_PATH", str(path))

    def write(content):
        path.write_bytes(content if isinstance(content, bytes) else content.encode())
        return path

    return write


def faults(**options):
    with pytest.raises(settings.WrongSettings) as raised:
        settings.load(**options)
    return raised.value.faults


def commented(path):
    """The values of a file by section and name, each with the comment above it."""
    found, section, comment = {}, None, []
    for line in path.read_text().splitlines():
        if line.startswith("#"):
            comment.append(line[1:].strip())
        elif line.startswith("["):
            section, comment = line[1:-1], []
        elif line:
            name, _, text = line.partition(" =")
            found.setdefault(section, {})[name] = (" ".join(comment), text.strip())
            comment = []
    return found


def test_luigi_cfg_says_what_the_settings_say():
    written = commented(REPOSITORY / "luigi.cfg")
    for section, described in settings.SETTINGS.items():
        found = {name: (comment, described[name].rule.parse(text))
                 for name, (comment, text) in written[section].items()}
        assert list(found.items()) == [
            (name, (setting.reason, setting.default)) for name, setting in described.items()]


def test_every_default_may_be_set():
    for described in settings.SETTINGS.values():
        for setting in described.values():
            assert setting.rule.allows(setting.default)
            assert type(setting.default) is setting.rule.kind


def test_every_field_of_the_model_is_a_setting():
    assert list(settings.SETTINGS["network"]) == list(rules(NetworkConfig))
    assert list(settings.SETTINGS["training"])[:len(rules(TrainingConfig))] == list(
        rules(TrainingConfig))
    NetworkConfig(**settings.values(settings.network))
    TrainingConfig(**settings.training_values())


def test_luigi_has_every_setting_with_its_reason_as_an_option():
    shown = subprocess.run(
        [sys.executable, "-m", "luigi", "--module", "pipeline", "WriteReport", "--help-all"],
        cwd=REPOSITORY, capture_output=True, text=True, check=True).stdout
    shown = " ".join(shown.split())
    for section, described in settings.SETTINGS.items():
        for name, setting in described.items():
            assert f"--{section}-{name}".replace("_", "-") in shown
            assert " ".join(setting.reason.split()[:3]) in shown and f"({setting.rule})" in shown


@pytest.mark.parametrize("profile", settings.profiles())
def test_a_profile_holds_settings_that_there_are(profile):
    settings.load(profile)
    for section, names in commented(REPOSITORY / f"pipeline/profiles/{profile}.cfg").items():
        for name, (_, text) in names.items():
            value = settings.SETTINGS[section][name].rule.parse(text)
            assert settings.values(getattr(settings, section))[name] == value


def test_the_reference_is_the_seed_network_and_nothing_that_was_found_since():
    settings.load("reference")
    network, training = (settings.values(section)
                         for section in (settings.network, settings.training))
    assert network == {"num_units": 4096, "num_layers": 1, "grad_clipping": 5, "peepholes": True,
                       "learn_init": False, "dropout": 0, "recurrent_dropout": 0,
                       "input_dropout": 0, "recurrence": "fused"}
    wanted = {"optimiser": "adagrad", "rate": 0.005, "window": 1024, "denominator": "sentences",
              "max_norm": 0, "weight_decay": 0, "cooldown": 0}
    assert {name: training[name] for name in wanted} == wanted


def test_a_file_goes_before_luigi_cfg_and_a_profile_before_both(file):
    file("[network]\nnum_units = 3\n[training]\nseed = 5\n")
    settings.load()
    assert settings.values(settings.network)["num_units"] == 3
    settings.load("million")
    assert settings.values(settings.network)["num_units"] == 512
    assert settings.values(settings.training)["seed"] == 5


def test_what_the_command_is_given_goes_before_all_files(file):
    file("[network]\nnum_units = 3\n[training]\ncooldown = 0.5\n")
    settings.load("million", ["network.num_units=7 training.max-epochs = 9",
                              "corpus.path=two words.txt  vocabulary.size=all"])
    assert settings.values(settings.network)["num_units"] == 7
    assert settings.values(settings.training)["cooldown"] == 0.5
    assert settings.values(settings.training)["max_epochs"] == 9
    assert settings.values(settings.corpus)["path"] == "two words.txt"
    assert settings.values(settings.vocabulary)["size"] == "all"
    assert settings.differing() == {"training.cooldown": 0.5, "network.num_units": 7,
                                    "training.max_epochs": 9, "corpus.path": "two words.txt",
                                    "vocabulary.size": "all"}
    assert settings.place("network", "num_units") == "--set network.num_units=7"
    assert settings.place("training", "max_minutes").endswith("million.cfg, line 12")
    assert settings.place("training", "cooldown").endswith("mine.cfg, line 4")


@pytest.mark.parametrize("given, message", [
    ("training.rat=3", "there is no setting [training] rat; did you mean rate?"),
    ("network.rate=3", "there is no setting [network] rate; did you mean [training] rate?"),
    ("netwrok.num_units=3", "there is no section [netwrok]; did you mean [network]?"),
    ("xyzzy.a=3", "there is no section [xyzzy]"),
    ("rate=3", "it is not section.name=value, as in training.rate=0.002; did you mean "
               "training.rate?"),
    ("seed", "it is not section.name=value, as in training.rate=0.002; did you mean "
             "training.seed?"),
    ("xyzzy", "it is not section.name=value, as in training.rate=0.002"),
    ("training.rate=-1", "[training] rate = -1: it must be a number above 0"),
    ("training.rate=", "[training] rate = : it must be a number above 0"),
    ("network.recurrence=fusd", "[network] recurrence = fusd: it must be fused or scan; did you "
                                "mean fused?"),
    ("corpus.valid_share=1 ", "[corpus] valid_share = 1: it must be a number of at least 0"),
])
def test_what_is_wrong_with_what_the_command_is_given_is_told_as_of_a_file(given, message):
    (fault,) = faults(given=["run.port=8083", given])
    assert fault.startswith(f"--set {given.strip()}: {message}")


def test_all_faults_of_what_the_command_is_given_are_told_together(file):
    path = file("[training]\nrate = -1\n")
    assert faults(given=["training.seed=1 training.seed=2", "corpus.test_share=0.999"]) == [
        f"{path}, line 2: [training] rate = -1: it must be a number above 0",
        "--set training.seed=2: [training] seed is set a second time"]
    file("")
    assert faults(given=["corpus.test_share=0.999"]) == [
        "--set corpus.test_share=0.999: [corpus] valid_share + test_share = 1.009: it must be "
        "below 1, to leave text for the training"]


def test_a_profile_may_be_any_file(tmp_path):
    mine = tmp_path / "mine.cfg"
    mine.write_text("[network]\nnum_units = 11\n")
    settings.load(settings.profile(str(mine)))
    assert settings.values(settings.network)["num_units"] == 11
    assert settings.profile_in_force() == "mine" and settings.differing() == {}
    mine.write_text("[network]\nnum_unit = 11\n")
    assert faults(profile=str(mine)) == [
        f"{mine}, line 2: there is no setting [network] num_unit; did you mean num_units?"]
    mine.unlink()
    assert faults(profile=str(mine)) == [f"{mine}: there is no such file"]
    other = tmp_path / "night.cfg"
    other.write_text("")
    assert faults(profile=str(other)) == [
        f"{other}: there is a profile night already, whose current model this one's would "
        "replace: give the file another name"]
    settings.load(str(REPOSITORY / "pipeline" / "profiles" / "night.cfg"))
    assert settings.values(settings.network)["num_units"] == 768


def test_the_listing_is_a_file_of_the_same_settings(file, tmp_path, monkeypatch):
    monkeypatch.setenv("PIPELINE_PLACE", "elsewhere")
    monkeypatch.setenv("PIPELINE_SECRET", "of nobody's business")
    path = file("[run]\ntolerance = 1.5\n[corpus]\npath = ${PIPELINE_PLACE}\n"
                "[smtp]\npassword = ${PIPELINE_SECRET}\n")
    settings.load("million", ["training.rate=0.002"])
    text = listing({("run", "device"): ("--device", "cuda")})
    found = {section: settings.values(getattr(settings, section)) for section in settings.SETTINGS}
    written = tmp_path / "written.cfg"
    written.write_text(text)
    for section, described in settings.SETTINGS.items():
        for name, (comment, _) in commented(written)[section].items():
            assert comment.startswith(f"{described[name].reason} from ")

    def source(section, name):
        return commented(written)[section][name][0].rpartition(" from ")[2]

    assert source("training", "rate") == "--set training.rate=0.002"
    assert source("training", "max_minutes").startswith("pipeline/profiles/million.cfg, line ")
    assert source("run", "tolerance") == f"{path}, line 2"
    assert source("run", "device") == "--device"
    assert re.fullmatch(r"luigi.cfg, line \d+: the default", source("training", "seed"))
    assert "elsewhere" in text and "nobody" not in text
    file("")
    settings.load(str(written))
    found["run"]["device"] = "cuda"
    for section, values in found.items():
        assert settings.values(getattr(settings, section)) == values


def test_the_command_lists_what_a_run_with_its_options_has():
    done = command("pipeline", "settings", "--set", "training.rate=0.002", "--profile", "million",
                   "--workers", "3", "--corpus", "mine.txt")
    assert (done.returncode, done.stderr) == (0, "")
    for lines in ("# from --set training.rate=0.002\nrate = 0.002\n",
                  "# from --workers\nworkers = 3\n", "# from --corpus\npath = mine.txt\n",
                  "million.cfg, line 5\nnum_units = 512\n"):
        assert lines in done.stdout


def test_all_faults_of_all_files_are_told_at_once_with_their_places(file, monkeypatch, tmp_path):
    (tmp_path / "p.cfg").write_text("[network]\nnum_unit = 3\n")
    monkeypatch.setattr(settings, "_PROFILES", tmp_path)
    path = file("\n[training]\nrate = -1\n# seed = x\nseed = x\n\n[tokens]\nlowercase = yes\n")
    assert faults(profile="p") == [
        f"{path}, line 3: [training] rate = -1: it must be a number above 0",
        f"{path}, line 5: [training] seed = x: it must be a whole number from 0 to 4,294,967,295",
        f"{path}, line 8: [tokens] lowercase = yes: it must be true or false",
        f"{tmp_path}/p.cfg, line 2: there is no setting [network] num_unit; did you mean "
        "num_units?",
    ]


@pytest.mark.parametrize("content, line, message", [
    ("[netwrok]\nnum_units = x", 1, "there is no section [netwrok]; did you mean [network]?"),
    ("[DEFAULT]\nseed = 1", 1, "there is no section [DEFAULT]"),
    ("[training]\nmax_epoch = 3", 2, "there is no setting [training] max_epoch; did you mean "
                                      "max_epochs?"),
    ("[training]\nRate = 3", 2, "there is no setting [training] Rate; did you mean rate?"),
    ("[training]\nxyzzy = 3", 2, "there is no setting [training] xyzzy"),
    ("[training]\nrate = nan", 2, "[training] rate = nan: it must be a number above 0"),
    ("[training]\nrate =", 2, "[training] rate = : it must be a number above 0"),
    ("[training]\noptimiser = foo", 2, "[training] optimiser = foo: it must be adagrad, adam, "
                                       "rmsprop, momentum or adadelta"),
    ("[network]\nrecurrence = fusd", 2, "[network] recurrence = fusd: it must be fused or scan; "
                                        "did you mean fused?"),
    ("[vocabulary]\nsize = 3", 2, "[vocabulary] size = 3: it must be a whole number from 4 to "
                                  "2,147,483,647 or all"),
    ("[vocabulary]\nsize = al", 2, "[vocabulary] size = al: it must be a whole number from 4 to "
                                   "2,147,483,647 or all; did you mean all?"),
    ("[tokens]\nsplit = space", 2, "[tokens] split = space: it must be words or spaces; did you "
                                   "mean spaces?"),
    ("[vocabulary]\nword_list = no/such", 2, "[vocabulary] word_list = no/such: there is no such "
                                             "file"),
    ("[training]\nwarm_start = flase", 2, "[training] warm_start = flase: there is no such file; "
                                           "did you mean false?"),
    ("[baseline]\norder = 1", 2, "[baseline] order = 1: it must be 0, 2, 3, 4 or 5"),
    ("[download]\nsha256 = 12ab", 2, "[download] sha256 = 12ab: it must be 64 hexadecimal digits, "
                                     "or empty"),
    ("[corpus]\nvalid_share = 0.5\ntest_share = 0.5", 3, "[corpus] valid_share + test_share = 1: "
     "it must be below 1, to leave text for the training"),
    ("[run]\nport = 70000", 2, "[run] port = 70000: it must be a whole number from 1 to 65,535"),
    ("seed = 1\nrate = 2", 1, "'seed = 1' stands before the first [section]"),
    ("[training]\nseed", 2, "'seed' is neither [section] nor name = value"),
    ("[training\nseed = 1", 1, "'[training' is neither [section] nor name = value"),
    ("[training]\nseed = 1\n[run]\nport = 5\n[training]\nseed = 2", 6,
     "[training] seed stands there a second time, first on line 2"),
    ("[training]\nseed = 1  # any", 2, "[training] seed: a comment has a line of its own"),
    ("[corpus]\npath = a.txt ; mine", 2, "[corpus] path: a comment has a line of its own"),
    ("[smtp]\npassword = ${PIPELINE_NONE}", 2, "[smtp] password = ${PIPELINE_NONE}: the "
                                               "environment has no such variable"),
    ("[worker]\nwait_interval = foo", 2, "[worker] wait_interval = foo: could not convert"),
    ("[worker]\nkeep_alife = true", 2, "there is no setting [worker] keep_alife; did you mean "
                                       "keep_alive?"),
    ("[core]\nrpc-retry-wait = x", 2, "[core] rpc_retry_wait = x: invalid literal"),
    (b"[run]\n# caf\xe9\nport = 1", 2, "it is not UTF-8"),
    ("[run]\nport = 1".encode("utf-16"), 1, "it is not UTF-8"),
], ids=lambda value: str(value)[:30])
def test_what_is_wrong_is_one_line_with_its_place(file, content, line, message):
    path = file(content)
    (fault,) = faults()
    assert fault.startswith(f"{path}, line {line}: {message}")
    assert "\n" not in fault


PIECES = st.sampled_from([
    "[", "]", "=", ":", " ", "\n", "\r", "\t", "#", ";", "%", "${", "}", "\ufeff", "\0", "\u2028",
    "-1", "nan", "true", "{", *(f"[{section}]\n" for section in settings._known()),
    *(name for names in settings._known().values() for name in names)])


@given(content=st.lists(PIECES | st.text(max_size=3), max_size=30).map(
    lambda pieces: "".join(pieces).encode()) | st.binary(max_size=30))
@example("".join(f"[{section}]\n" + "".join(f"{name} = \0{{\n" for name in names)
                 for section, names in settings._known().items()).encode())
def test_whatever_a_file_holds_is_read_or_refused_in_lines(tmp_path_factory, content):
    path = tmp_path_factory.getbasetemp() / "any.cfg"
    path.write_bytes(content)
    with pytest.MonkeyPatch.context() as environment:
        environment.setenv("LUIGI_CONFIG_PATH", str(path))
        try:
            settings.load()
        except settings.WrongSettings as error:
            assert error.faults
            for fault in error.faults:
                assert fault.startswith(f"{path}, line ") and "\n" not in fault
        else:
            for section in settings.SETTINGS:
                settings.values(getattr(settings, section))


@pytest.mark.parametrize("content, section, name, value", [
    ("\ufeff[corpus]\npath = a", "corpus", "path", "a"),
    ("[corpus]\npath = 100%/%(x)s", "corpus", "path", "100%/%(x)s"),
    ("[corpus]\r\npath = a b#c;d\r\n", "corpus", "path", "a b#c;d"),
    ("  [corpus]  # mine\n   path: a\n   valid: b\n; none\n", "corpus", "path", "a"),
    ("[corpus]\nvalid-share = 0.2", "corpus", "valid_share", 0.2),
    ("[corpus]\npath = ${PIPELINE_TEST}/x", "corpus", "path", "of # it/x"),
    ("[corpus]\ntest_share = 0.${PIPELINE_TENTHS}", "corpus", "test_share", 0.7),
])
def test_what_is_right_is_read(file, monkeypatch, content, section, name, value):
    monkeypatch.setenv("PIPELINE_TEST", "of # it")
    monkeypatch.setenv("PIPELINE_TENTHS", "7")
    file(content)
    settings.load()
    assert settings.values(getattr(settings, section))[name] == value


@pytest.mark.filterwarnings("ignore:The use of the configuration .core. error-email")
def test_luigi_s_own_settings_are_in_force(file):
    file("[smtp]\npassword = 100%\n[resources]\ngpu = 1\n[core]\nerror-email = a@example.org\n")
    settings.load()
    config = luigi.configuration.get_config()
    assert config.get("smtp", "password") == "100%"
    assert config.getintdict("resources") == {"gpu": 1}
    assert luigi.notifications.email().receiver == "a@example.org"
    assert luigi.worker.worker().wait_interval == 0.1  # of luigi.cfg


def test_what_was_in_force_before_is_forgotten(file, monkeypatch):
    file("[training]\nseed = 5\n")
    settings.load("million")
    monkeypatch.delenv("LUIGI_CONFIG_PATH")
    settings.load()
    assert settings.values(settings.training)["seed"] == 1
    assert settings.values(settings.network)["num_units"] == 256


@pytest.mark.parametrize("named", ["nowhere.cfg", ".", "pipe"])
def test_luigi_config_path_names_a_file(monkeypatch, tmp_path, named):
    os.mkfifo(tmp_path / "pipe")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("LUIGI_CONFIG_PATH", named)
    assert faults() == [
        f"LUIGI_CONFIG_PATH names {Path(named).absolute()}: there is no such file"]


def command(*arguments, **environment):
    return subprocess.run(
        [sys.executable, "-m", *arguments], cwd=environment.pop("cwd", REPOSITORY),
        env={**os.environ, "PYTHONPATH": str(REPOSITORY), **environment},
        capture_output=True, text=True)


@pytest.mark.parametrize("arguments", [
    ["pipeline", "run", "--scheduler", "local"], ["pipeline", "why"], ["pipeline", "report"],
    ["pipeline", "gc"], ["pipeline", "status"], ["pipeline", "daemon"],
    ["luigi", "--module", "pipeline", "EvaluatePerplexity", "--local-scheduler", "--no-lock"],
], ids=lambda arguments: " ".join(arguments[:2]))
def test_wrong_settings_stop_every_command_before_it_does_anything(file, tmp_path, arguments):
    path = file("[training]\nrate = -1\n[netwrok]\n")
    done = command(*arguments, PIPELINE_WORK=str(tmp_path / "work"))
    assert done.stderr == (
        f"error: {path}, line 2: [training] rate = -1: it must be a number above 0\n"
        f"error: {path}, line 3: there is no section [netwrok]; did you mean [network]?\n")
    assert (done.returncode, done.stdout) == (78, "")
    assert not (tmp_path / "work").exists()


def test_a_parser_that_luigi_is_told_of_is_ignored(file, tmp_path):
    # Luigi itself would end with a traceback for each of these.
    file("\ufeff[corpus]\npath = 100%\npath = b\n")
    done = command("pipeline", "why", LUIGI_CONFIG_PARSER="toml")
    assert done.returncode == 78 and len(done.stderr.splitlines()) == 1


def test_a_wrong_flag_of_luigi_s_command_is_one_line():
    done = command("luigi", "--module", "pipeline", "EvaluatePerplexity", "--training-rate", "-1")
    assert done.returncode == 2
    assert re.search(r"error: argument --training-rate: -1: it must be a number above 0$",
                     done.stderr.strip())


@pytest.mark.parametrize("flags, message", [
    (["--profile", "milion"], "argument --profile: there is no profile milion; did you mean "
                              "million?"),
    (["--scheduler", "none"], "argument --scheduler: none: it must be daemon, local or an address"),
    (["--workers", "0"], "argument --workers: 0: it must be a whole number from 1 to"),
    (["--workers", "x"], "argument --workers: x: it must be a whole number from 1 to"),
])
def test_a_wrong_option_is_told_with_those_that_there_are(flags, message):
    done = command("pipeline", "run", *flags)
    assert done.returncode == 2 and message in done.stderr


def test_commands_work_from_any_folder(tmp_path):
    (tmp_path / "mine.txt").write_text("A sentence .\n")
    (tmp_path / "mine.cfg").write_text("[corpus]\nvalid_share = 2\n")
    done = command("pipeline", "why", "--corpus", "mine.txt", "--work", "work", cwd=tmp_path)
    assert done.returncode == 0 and "SplitCorpus: it was never made" in done.stdout
    assert done.stderr == ""
    done = command("pipeline", "why", cwd=tmp_path, LUIGI_CONFIG_PATH="mine.cfg")
    assert done.stderr.startswith(f"error: {tmp_path}/mine.cfg, line 2: [corpus] valid_share = 2")
    assert not (tmp_path / "data").exists()
