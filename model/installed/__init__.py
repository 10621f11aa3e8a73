"""LSTM language models in a program: ``from lstm_model import LanguageModel``.

In the installed package this folder is ``lstm_model``, and the folders ``model`` and ``pipeline``
lie in it: see [tool.setuptools] in pyproject.toml.
"""

from .model.language_model import LanguageModel, SentenceScore, State
from .model.system.errors import UserError

__all__ = ["LanguageModel", "SentenceScore", "State", "UserError"]
