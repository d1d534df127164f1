from __future__ import annotations

import os
import sys
from pathlib import Path

import pytest

from trainshed.pipelines.guard import Guard, Refused


@pytest.fixture
def root(tmp_path: Path) -> Path:
    folder = tmp_path / "project"
    (folder / "scratch").mkdir(parents=True)
    return folder


@pytest.fixture
def guard(root: Path, monkeypatch: pytest.MonkeyPatch) -> Guard:
    """Return a guard that watches without a hook: a hook would stay for the life of this process."""
    monkeypatch.setattr(sys, "addaudithook", lambda _hook: None)
    made = Guard(root=root, scratch=root / "scratch")
    made.on()
    return made


@pytest.mark.parametrize(
    ("event", "arguments", "message"),
    [
        ("socket.connect", (None, ("127.0.0.1", 80)), "uses the network"),
        ("socket.getaddrinfo", ("localhost", 80, 0, 0, 0), "uses the network"),
        ("subprocess.Popen", ("ls", ["ls"], None, None), "starts or signals another program"),
        ("os.kill", (1, 9), "starts or signals another program"),
        ("open", ("out.txt", "w", os.O_WRONLY | os.O_CREAT), "writes out.txt"),
        ("open", (b"out.txt", "a", os.O_APPEND | os.O_RDWR), "writes out.txt"),
        ("os.rename", ("/tmp/x", "out.txt", -1, -1), "writes out.txt"),
        ("os.remove", ("out.txt", -1), "writes out.txt"),
    ],
)
def test_what_a_template_may_not_do_is_refused_and_remembered(
    guard: Guard, root: Path, monkeypatch: pytest.MonkeyPatch, event: str, arguments: tuple[object, ...], message: str
) -> None:
    monkeypatch.chdir(root)
    with pytest.raises(Refused, match=message) as caught:
        guard.audit(event, arguments)
    assert guard.refused is caught.value
    with pytest.raises(Refused):
        guard.audit("os.system", ("true",))
    assert guard.refused is caught.value
    assert caught.value.next_step


@pytest.mark.parametrize(
    ("event", "arguments"),
    [
        ("socket.__new__", (None, 2, 1, 0)),
        ("socket.gethostname", ()),
        ("import", ("kfp", None, None, None, None)),
        ("open", (3, "w", os.O_WRONLY)),
        ("open", ("scratch/out.txt", "w", os.O_WRONLY | os.O_CREAT)),
        ("open", ("/tmp/out.txt", "w", os.O_WRONLY | os.O_CREAT)),
        ("os.mkdir", ("scratch/new", 0o777, -1)),
        ("os.truncate", (3, 0)),
    ],
)
def test_all_else_is_allowed(guard: Guard, root: Path, monkeypatch: pytest.MonkeyPatch, event: str, arguments: tuple[object, ...]) -> None:
    monkeypatch.chdir(root)
    guard.audit(event, arguments)
    assert guard.refused is None


def test_files_of_the_project_that_are_read_are_remembered(guard: Guard, root: Path, tmp_path: Path) -> None:
    for path in (root / "a.yaml", root / "scratch" / "b", tmp_path / "outside", Path(os.__file__), 3):
        guard.audit("open", (path, "r", os.O_RDONLY))
    assert guard.reads == {"a.yaml"}


def test_a_guard_that_is_off_sees_nothing(guard: Guard) -> None:
    guard.off()
    guard.audit("os.system", ("true",))
    assert guard.refused is None
    guard.on()
    with pytest.raises(Refused):
        guard.audit("os.system", ("true",))


def test_a_hook_is_added_once(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    hooks: list[object] = []
    monkeypatch.setattr(sys, "addaudithook", hooks.append)
    guard = Guard(root=root, scratch=root / "scratch")
    guard.on()
    guard.on()
    assert hooks == [guard.audit]


def test_the_innermost_line_of_the_project_is_an_errors_place(guard: Guard, root: Path) -> None:
    file = root / "template.py"
    file.write_text("import json\n\njson.loads('{')\n")
    with pytest.raises(ValueError, match="Expecting") as caught:
        exec(compile(file.read_text(), str(file), "exec"), {})  # noqa: S102 - a template's code
    assert guard.place(caught.value) == "template.py:3"
    with pytest.raises(SyntaxError) as wrong:
        compile("x = 1\ndef x(:\n", str(file), "exec")
    assert guard.place(wrong.value) == "template.py:2"
    assert guard.place(ValueError("never raised")) == ""


def test_the_running_line_of_the_project_is_the_caller(guard: Guard, root: Path) -> None:
    file = root / "template.py"
    file.write_text("\ncaller()\n")
    seen: list[str] = []
    exec(compile(file.read_text(), str(file), "exec"), {"caller": lambda: seen.append(guard.caller())})  # noqa: S102 - a template's code
    assert seen == ["template.py:2"]
    assert guard.caller() == ""


def test_a_project_below_pythons_own_folder_is_still_the_projects(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "base_prefix", str(tmp_path))
    guard = Guard(root=tmp_path / "project", scratch=tmp_path / "project" / "scratch")
    assert guard.is_own(str(tmp_path / "project" / "template.py"))
    assert not guard.is_own(str(tmp_path / "project" / "scratch" / "x"))
    assert not guard.is_own(str(tmp_path / "lib" / "x.py"))
    assert guard.shown(str(tmp_path / "lib")) == str(tmp_path / "lib")


def test_folders_that_are_listed_are_told_but_for_those_that_python_imports_from(guard: Guard, root: Path) -> None:
    (root / "rules").mkdir()
    for event, path in (("os.listdir", str(root / "rules")), ("os.scandir", root / "scratch"), ("os.listdir", "/usr"), ("os.scandir", 3)):
        guard.audit(event, (path,))
    listing = compile("listed('os.listdir', (folder,))", "<frozen importlib._bootstrap_external>", "exec")
    exec(listing, {"listed": guard.audit, "folder": str(root)})  # noqa: S102 - code that Python believes to be its importing
    assert guard.reads == {"rules"}


def test_a_file_outside_of_the_repository_is_told_with_its_line(guard: Guard, root: Path, tmp_path: Path) -> None:
    (tmp_path / "elsewhere.txt").touch()
    (root / "template.py").write_text("read('open', (file, 'r', 0))\n")
    code = compile((root / "template.py").read_text(), str(root / "template.py"), "exec")
    for file in (tmp_path / "elsewhere.txt", tmp_path / "missing.txt", os.__file__, root / "scratch" / "own", "/etc/passwd"):
        exec(code, {"read": guard.audit, "file": str(file)})  # noqa: S102 - code of the project
    (tmp_path / "module.py").touch()
    frozen = compile("read('open', (file, 'r', 0))", "<frozen importlib._bootstrap_external>", "exec")
    given = {"read": guard.audit, "file": str(tmp_path / "module.py")}
    exec(compile("\nrun(frozen, given)\n", str(root / "imports.py"), "exec"), {"run": exec, "frozen": frozen, "given": given})  # noqa: S102
    assert guard.strange.pop(str(tmp_path / "module.py")) == "imports.py:2"
    assert guard.strange == {str(tmp_path / "elsewhere.txt"): "template.py:1"}


def test_a_temporary_folder_may_be_removed_with_all_that_it_holds(guard: Guard, root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(root)
    (root / "rules").mkdir()
    scratch, rules = (os.open(root / name, os.O_RDONLY) for name in ("scratch", "rules"))
    guard.audit("os.remove", ("words.txt", scratch))
    guard.audit("os.mkdir", ("words", 0o700, scratch))
    guard.audit("os.symlink", (str(root / "template.py"), str(root / "scratch" / "link"), -1))
    assert guard.refused is None
    with pytest.raises(Refused, match=r"writes rules/words\.txt"):
        guard.audit("os.remove", ("words.txt", rules))
    os.close(scratch)
    os.close(rules)
