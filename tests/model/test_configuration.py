import dataclasses
import math

import pytest

from model.configuration import NetworkConfig, Rule, TrainingConfig, rules
from model.system.errors import UserError

TRAINING = {"optimiser": "adam", "rate": 0.004, "window": 64, "denominator": "sentences",
            "micro_batch_sentences": 32, "micro_batch_tokens": 8192, "max_epochs": 7,
            "max_minutes": 7, "cooldown": 0.7, "validations_per_epoch": 2, "patience": 4,
            "shards_in_memory": 16, "seed": 1}


@pytest.mark.parametrize("rule, text, value", [
    (Rule(bool), "true", True),
    (Rule(bool), "False", False),
    (Rule(int), "-12", -12),
    (Rule(int, at_least=0), "0", 0),
    (Rule(int, at_most=2**32 - 1), "4294967295", 2**32 - 1),
    (Rule(float), "3", 3.0),
    (Rule(float, above=0), "1e-3", 0.001),
    (Rule(float, at_least=0, below=1), "0", 0.0),
    (Rule(int, at_least=4, word="all"), "4", 4),
    (Rule(int, at_least=4, word="all"), "all", "all"),
    (Rule(str), "", ""),
    (Rule(str, choices=("a", "b")), "b", "b"),
    (Rule(int, choices=(0, 2)), "2", 2),
    (Rule(str, pattern="[0-9a-f]{4}"), "12ab", "12ab"),
])
def test_a_text_stands_for_a_value(rule, text, value):
    parsed = rule.parse(text)
    assert parsed == value and type(parsed) is type(value)


@pytest.mark.parametrize("rule, texts, wanted", [
    (Rule(bool), ["yes", "1", "on", "", "tru"], "true or false"),
    (Rule(int), ["", "x", "1.0", "1e3", "0x10", "nan", "inf"], "a whole number"),
    (Rule(int, at_least=1), ["0", "-1"], "a whole number of at least 1"),
    (Rule(int, at_least=1, at_most=65535), ["0", "65536"], "a whole number from 1 to 65,535"),
    (Rule(float), ["", "0,1", "nan", "inf", "-inf", "1e999"], "a number"),
    (Rule(float, above=0), ["0", "-1", "nan", "inf"], "a number above 0"),
    (Rule(float, at_least=0, below=1), ["1", "-0.1"], "a number of at least 0 and below 1"),
    (Rule(int, at_least=4, word="all"), ["3", "", "All", "4.5"],
     "a whole number of at least 4 or all"),
    (Rule(str, choices=("a", "b")), ["", "A", "ab"], "a or b"),
    (Rule(str, choices=("a", "b", "c")), ["d"], "a, b or c"),
    (Rule(int, choices=(0, 2, 3)), ["1", "4", "", "false", "2.0"], "0, 2 or 3"),
    (Rule(str, pattern="[0-9]*", described="digits, or nothing"), ["1a"], "digits, or nothing"),
])
def test_a_text_that_makes_no_sense_is_told_what_does(rule, texts, wanted):
    for text in texts:
        with pytest.raises(ValueError, match=f"^it must be {wanted}$"):
            rule.parse(text)


def test_every_field_has_a_rule():
    for config in (NetworkConfig, TrainingConfig):
        assert list(rules(config)) == [field.name for field in dataclasses.fields(config)]


@pytest.mark.parametrize("name, values", [
    ("optimiser", ["newton", ""]),
    ("rate", [0, -1, math.nan, math.inf, "0.1", None]),
    ("window", [0, 1.5, True]),
    ("denominator", ["words"]),
    ("max_minutes", [-1]),
    ("cooldown", [-0.1, 1.1]),
    ("beta1", [-0.1, 1]),
    ("weight_decay", [-0.1, math.inf]),
    ("seed", [-1, 2**32]),
])
def test_a_training_that_makes_no_sense_is_refused(name, values):
    TrainingConfig(**TRAINING)
    for value in values:
        with pytest.raises(UserError, match=rf"^\[training\] {name} = .*: it must be "):
            TrainingConfig(**{**TRAINING, name: value})


@pytest.mark.parametrize("name, values", [
    ("num_units", [0, 2.5]), ("num_layers", [0]), ("grad_clipping", [-1, math.nan]),
    ("peepholes", [1, "true"]), ("dropout", [1, -0.1]),
    ("recurrent_dropout", [1, -0.1, "0.1"]), ("input_dropout", [1, -0.1, "0.1"]),
    ("recurrence", ["fusd"]),
])
def test_a_network_that_makes_no_sense_is_refused(name, values):
    for value in values:
        with pytest.raises(UserError, match=rf"^\[network\] {name} = .*: it must be "):
            NetworkConfig(**{"num_units": 4, name: value})
