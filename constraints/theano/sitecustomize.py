"""On Python 3.12 Theano's set-up needs two names that configparser has lost.

For the Python that builds Theano alone, which finds it by PYTHONPATH.
"""

import configparser

if not hasattr(configparser, "SafeConfigParser"):
    configparser.SafeConfigParser = configparser.ConfigParser  # type: ignore[attr-defined]
    configparser.ConfigParser.readfp = (  # type: ignore[attr-defined]
        configparser.ConfigParser.read_file)
