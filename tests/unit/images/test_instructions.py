"""Lines, flags, words and variables of Dockerfiles."""

from __future__ import annotations

from pathlib import Path

import pytest

from trainshed.errors import UsageError
from trainshed.images import instructions
from trainshed.images.instructions import Instruction, Unresolved

FILE = Path("Dockerfile")


def read(text: str) -> list[Instruction]:
    return instructions.read(FILE, text)[1]


def test_continuations_comments_and_empty_lines_make_one_instruction_that_knows_its_lines() -> None:
    steps = read("# first\n\nFROM a\nRUN one \\\n  # between\n\n  && two \\ \n\t&& three\nUSER 1\n")
    assert [(step.keyword, step.line, step.last_line) for step in steps] == [("FROM", 3, 3), ("RUN", 4, 8), ("USER", 9, 9)]
    assert steps[1].value.split() == ["one", "&&", "two", "&&", "three"]


def test_windows_line_ends_and_a_byte_order_mark_do_not_matter() -> None:
    steps = read("\ufefffrom a\r\nRUN x \\\r\n  y\r\n")
    assert [(step.keyword, step.value) for step in steps] == [("FROM", "a"), ("RUN", "x   y")]


def test_a_tab_separates_an_instruction_from_its_value() -> None:
    assert read("FROM\ta AS b\n")[0].value == "a AS b"


def test_an_instruction_may_stand_alone() -> None:
    assert read("FROM a\nCMD\n")[1].value == ""


def test_the_escape_directive_changes_what_continues_a_line() -> None:
    escape, steps = instructions.read(FILE, "# escape=`\nFROM a\nRUN one `\n two\nRUN c:\\\n")
    assert escape == "`"
    assert [step.value for step in steps] == ["a", "one  two", "c:\\"]


def test_a_directive_below_another_line_is_a_comment() -> None:
    assert instructions.read(FILE, "# a comment\n# escape=`\nFROM a\n")[0] == "\\"


def test_other_directives_may_stand_before_the_escape() -> None:
    assert instructions.read(FILE, "# syntax=docker/dockerfile:1\n# escape=`\nFROM a\n")[0] == "`"


def test_another_escape_character_is_refused_with_its_line() -> None:
    with pytest.raises(UsageError, match=r"Dockerfile:1: escape directive '/'"):
        read("# escape=/\nFROM a\n")


def test_two_backslashes_at_the_end_do_not_continue_a_line() -> None:
    assert len(read("RUN echo a\\\\\nUSER 1\n")) == 2


def test_an_unknown_instruction_is_refused_with_line_and_suggestion() -> None:
    with pytest.raises(UsageError, match=r"Dockerfile:2: unknown instruction 'COPPY'; perhaps you meant 'COPY'"):
        read("FROM a\nCOPPY a b\n")


def test_here_documents_are_no_instructions() -> None:
    steps = read("RUN <<EOF sh && cat <<-'END'\nFROM inside\nEOF\n\tCOPY inside\n\tEND\nCOPY <<FILE /x\n${y}\nFILE\nUSER 1\n")
    assert [(step.keyword, step.line, step.last_line) for step in steps] == [("RUN", 1, 5), ("COPY", 6, 8), ("USER", 9, 9)]


@pytest.mark.parametrize("value", ["echo '<<EOF'", 'echo "a <<EOF"', "cat <<<EOF", "echo $((1<<N))"])
def test_what_only_looks_like_a_here_document_is_none(value: str) -> None:
    assert [step.keyword for step in read(f"RUN {value}\nUSER 1\n")] == ["RUN", "USER"]


def test_a_here_document_without_end_is_refused_with_its_first_line() -> None:
    with pytest.raises(UsageError, match=r"Dockerfile:2: the here-document 'EOF' has no end"):
        read("FROM a\nRUN <<EOF\ntext\n")


def test_flags_stand_before_the_value_only() -> None:
    (step,) = read("COPY --from=build --chown=1:1 --link a --from=b /c\n")
    assert step.flags == (("from", "build"), ("chown", "1:1"), ("link", ""))
    assert step.value == "a --from=b /c"
    assert step.flag("chmod") == ""


def test_mounts_are_tables_with_a_type() -> None:
    (step,) = read('RUN --mount=source=a,target=/a --network=none --mount="type=secret,id=pip" true\n')
    assert step.mounts() == [{"type": "bind", "source": "a", "target": "/a"}, {"type": "secret", "id": "pip"}]


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        ("a b  c", ["a", "b", "c"]),
        ('["a b", "c"]', ["a b", "c"]),
        ("[a b", ["[a", "b"]),
        ("[1, 2]", ["[1,", "2]"]),
        ('"a b" \'c d\' e"f g"', ["a b", "c d", "ef g"]),
        ("a\\ b c", ["a\\ b", "c"]),
    ],
)
def test_words_are_split_as_the_builder_splits_them(value: str, expected: list[str]) -> None:
    assert instructions.words(value) == expected


def test_arg_declares_several_names_with_or_without_default() -> None:
    (step,) = read("ARG A=1 B C=\"x y\" D=''\n")
    assert instructions.declared(step) == [("A", "1"), ("B", None), ("C", "x y"), ("D", "")]


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("$A-${A}", "1-1"),
        ("${A:-x}${E:-x}${N:-x}", "1xx"),
        ("${A-x}${E-x}${N-x}", "1x"),
        ("${A:+x}${E:+x}${N:+x}", "x"),
        ("${A+x}${E+x}${N+x}", "xx"),
        ("${N:-${A}y}", "1y"),
        ("${A:-${N}}", "1"),
        ("\\$A", "$A"),
        ("a}b", "a}b"),
    ],
)
def test_variables_are_replaced_as_the_builder_replaces_them(text: str, expected: str) -> None:
    assert instructions.substitute(text, {"A": "1", "E": ""}) == expected


@pytest.mark.parametrize("text", ["$N", "${N}", "${A#x}", "${A:?x}", "${A:-x", "$", "${", "$(x)", "${N:-${M}}"])
def test_a_variable_without_value_or_of_another_form_is_unresolved(text: str) -> None:
    with pytest.raises(Unresolved):
        instructions.substitute(text, {"A": "1"})


def test_only_a_word_that_is_one_variable_has_a_sole_variable() -> None:
    assert instructions.sole_variable("${BASE_PYTHON}") == "BASE_PYTHON"
    assert instructions.sole_variable("$BASE_PYTHON") == "BASE_PYTHON"
    assert instructions.sole_variable("${BASE_PYTHON}:1") is None
    assert instructions.sole_variable("${BASE:-x}") is None


def test_the_flag_that_ends_a_line_is_taken_whole() -> None:
    assert read("RUN --network=none\n")[0].flags == (("network", "none"),)


def test_a_text_that_is_not_closed_is_unresolved() -> None:
    with pytest.raises(Unresolved):
        instructions.substitute("${A:-${A}", {"A": "1"})
