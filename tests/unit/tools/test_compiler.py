from __future__ import annotations

from collections.abc import Iterator
from importlib import metadata

import pytest

from trainshed.errors import ToolMissing
from trainshed.tools import compiler


@pytest.fixture
def _fresh() -> Iterator[None]:
    compiler.versions.cache_clear()
    yield
    compiler.versions.cache_clear()


@pytest.mark.usefixtures("_fresh")
def test_versions_are_of_all_packages_that_compile() -> None:
    found = compiler.versions()
    assert set(found) == {"kfp", "kfp-kubernetes", "kfp-pipeline-spec"}
    assert found["kfp"] == metadata.version("kfp")


@pytest.mark.usefixtures("_fresh")
def test_a_missing_kfp_is_a_missing_tool(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(compiler, "_PACKAGES", ("kfp", "kfp-no-such-package"))
    with pytest.raises(ToolMissing, match="the package kfp-no-such-package is not installed") as caught:
        compiler.versions()
    assert caught.value.next_step == "Run `scripts/setup`."
