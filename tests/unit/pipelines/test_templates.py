from __future__ import annotations

from pathlib import Path

import pytest

from trainshed.errors import UsageError
from trainshed.pipelines import templates


def test_python_and_yaml_files_are_templates_sorted_by_name(tmp_path: Path) -> None:
    for name in ("b.py", "a.yaml", "c.yml", "_shared.py", ".hidden.py", "README.md"):
        (tmp_path / name).touch()
    (tmp_path / "folder.py").mkdir()
    found = templates.discover(tmp_path)
    assert [(template.name, template.kind) for template in found.values()] == [("a", "yaml"), ("b", "python"), ("c", "yaml")]
    assert found["a"].path == tmp_path / "a.yaml"


def test_a_missing_folder_has_no_templates(tmp_path: Path) -> None:
    assert templates.discover(tmp_path / "nowhere") == {}


def test_all_wrong_files_are_told_at_once(tmp_path: Path) -> None:
    for name in ("Big.py", "with-dash.yaml", "twice.py", "twice.yaml"):
        (tmp_path / name).touch()
    (tmp_path / "broken.py").symlink_to("nowhere")
    with pytest.raises(UsageError) as caught:
        templates.discover(tmp_path)
    lines = caught.value.message.splitlines()
    assert len(lines) == 4
    assert lines[0].endswith("'Big' is no name of a pipeline: lower-case letters, digits and underscores, a letter first")
    assert lines[1] == f"{tmp_path / 'broken.py'}: not a file that can be read"
    assert lines[2] == f"{tmp_path / 'twice.yaml'}: twice.py has the same name"


def test_names_select_in_their_order_and_none_selects_all(tmp_path: Path) -> None:
    for name in ("a.py", "b.py"):
        (tmp_path / name).touch()
    known = templates.discover(tmp_path)
    assert [template.name for template in templates.select(known, ["b", "a", "b"])] == ["b", "a"]
    assert [template.name for template in templates.select(known, [])] == ["a", "b"]


def test_an_unknown_name_comes_with_a_suggestion(tmp_path: Path) -> None:
    (tmp_path / "training.py").touch()
    with pytest.raises(UsageError, match="no pipeline 'trainnig'; perhaps you meant 'training'") as caught:
        templates.select(templates.discover(tmp_path), ["trainnig"])
    assert caught.value.next_step == "Known: training."
    with pytest.raises(UsageError) as caught:
        templates.select({}, ["x"])
    assert caught.value.next_step == "Known: none."
