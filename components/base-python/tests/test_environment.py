"""The base holds what the lock names, and runs as nobody special."""

from __future__ import annotations

import os
import re
import sys
from importlib import metadata
from importlib.util import find_spec


def test_python_is_the_environment_s_own() -> None:
    assert sys.prefix == "/opt/venv"


def test_the_user_is_not_root() -> None:
    assert os.getuid() == 10001


def test_no_build_tool_is_left_in_the_environment() -> None:
    assert find_spec("pip") is None
    assert find_spec("setuptools") is None


def test_scikit_learn_fits_a_model() -> None:
    from sklearn.linear_model import LogisticRegression

    model = LogisticRegression().fit([[0.0], [1.0], [2.0], [3.0]], [0, 0, 1, 1])
    assert list(model.predict([[-1.0], [4.0]])) == [0, 1]


def test_no_package_misses_what_it_requires() -> None:
    installed = {_plain(distribution.name) for distribution in metadata.distributions()}
    missing = [
        f"{distribution.name} needs {requirement}"
        for distribution in metadata.distributions()
        for requirement in distribution.requires or ()
        if ";" not in requirement and _plain(re.split(r"[^\w.-]", requirement, maxsplit=1)[0]) not in installed
    ]
    assert missing == []


def _plain(name: str) -> str:
    return re.sub(r"[-_.]+", "-", name).lower()
