"""The real kfp compiler in its child process: what it makes of templates, and what it says of wrong ones."""

from __future__ import annotations

import contextlib
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Mapping
from pathlib import Path

import pytest

from tests.support.pipelines import COMPILED, IMAGES, TEMPLATE, write_project
from trainshed import settings
from trainshed.errors import Interrupted, ToolMissing, UsageError
from trainshed.pipelines.stamp import stamp
from trainshed.tools import compiler, process
from trainshed.tools.compiler import Compiled, Job

PIPELINE = """
from kfp import dsl

@dsl.container_component
def step(word: str):
    return dsl.ContainerSpec(image="component.invalid/train:unstamped", command=["echo"], args=[word])
"""

WRONG = {
    "exits": ("import sys\nsys.exit(3)\n", "exits.py:2: ends the program (exit code 3)"),
    "exits_well": ("import sys\nsys.exit()\n", "exits_well.py:2: ends the program (exit code 0)"),
    "exits_hard": ("import os\n\nos._exit(7)\n", "exits_hard.py:3: ends the program (exit code 7)"),
    "raises": (
        PIPELINE + "\n@dsl.pipeline\ndef raises(x: int = 1):\n    step(word=1 / 0)\n",
        "raises.py:10: ZeroDivisionError: division by zero",
    ),
    "raises_base": ("raise KeyboardInterrupt\n", "raises_base.py:1: KeyboardInterrupt"),
    "wrong_type": (
        PIPELINE + "\n@dsl.pipeline\ndef wrong_type(x: int = 1):\n    step(word=x)\n",
        "wrong_type.py:10: InconsistentTypeException: Incompatible argument",
    ),
    "wrong_syntax": ("x = 1\ndef x(:\n", "wrong_syntax.py:2: SyntaxError: invalid syntax"),
    "missing_module": ("\nimport nosuchmodule\n", "missing_module.py:2: module 'nosuchmodule' is missing"),
    "missing_file": (
        "from kfp import components\ncomponents.load_component_from_file('components/no/component.yaml')\n",
        "missing_file.py:2: FileNotFoundError: [Errno 2] No such file or directory: 'components/no/component.yaml'",
    ),
    "helper_raises": ("import _bad\n", "_bad.py:2: ValueError: no"),
    "network": (
        "import urllib.request\ntry:\n    urllib.request.urlopen('http://127.0.0.1:9/')\nexcept Exception:\n    pass\n",
        "network.py:3: uses the network",
    ),
    "resolves": (
        "import socket\ntry:\n    socket.gethostbyname('localhost')\nexcept BaseException:\n    pass\n",
        "resolves.py:3: uses the network",
    ),
    "program": ("import subprocess\nsubprocess.run(['ls'], check=True)\n", "program.py:2: starts or signals another program"),
    "shell": ("import os\nos.system('true')\n", "shell.py:2: starts or signals another program"),
    "kills": ("import os\nos.kill(os.getppid(), 9)\n", "kills.py:2: starts or signals another program"),
    "writes": ("from pathlib import Path\nPath('written.txt').write_text('x')\n", "writes.py:2: writes written.txt"),
    "removes": ("import os\nos.remove('trainshed.toml')\n", "removes.py:2: writes trainshed.toml"),
    "no_pipeline": ("x = 1\n", "no_pipeline.py: it defines no function with @dsl.pipeline"),
    "two_pipelines": (
        PIPELINE + "\n@dsl.pipeline\ndef b():\n    step(word='x')\n\n@dsl.pipeline\ndef a():\n    step(word='x')\n",
        "two_pipelines.py: it defines several pipelines (a, b) and none named 'two_pipelines'",
    ),
}


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_project(tmp_path_factory.mktemp("compile") / "project")


def jobs(root: Path, sources: Mapping[str, str]) -> list[Job]:
    for name, text in sources.items():
        (root / "pipeline_templates" / f"{name}.py").write_text(text)
    return [job(root, root / "pipeline_templates" / f"{name}.py") for name in sources]


def job(root: Path, source: Path) -> Job:
    return Job(
        name=source.stem, source=source, kind="yaml" if source.suffix == ".yaml" else "python", log=root / f"build/logs/{source.stem}.log"
    )


def compiled(root: Path, todo: list[Job], *, limit: float = 120.0) -> dict[str, Compiled | UsageError]:
    outcomes = compiler.compile_all(todo, root=root, components=root / "components", scratch=root / ".trainshed", limit=limit)
    assert list((root / ".trainshed").iterdir()) == []
    return outcomes


def good(outcome: Compiled | UsageError) -> Compiled:
    assert isinstance(outcome, Compiled), outcome
    return outcome


def test_a_template_compiles_to_the_same_bytes_each_time_and_tells_what_it_read(root: Path) -> None:
    first, second = (good(compiled(root, jobs(root, {"training": TEMPLATE}))["training"]) for _ in range(2))
    assert first.text == second.text == COMPILED
    assert first.reads == ("components/extract/component.yaml", "components/train/component.yaml", "pipeline_templates/training.py")
    assert first.notes == ()
    assert not list(root.rglob("__pycache__"))


def test_kfp_writes_a_stamped_pipeline_as_it_was(root: Path) -> None:
    file = root / "stamped.yaml"
    file.write_text(stamp(COMPILED, IMAGES, place="x"))
    other = root / "other_layout.yaml"
    other.write_text(COMPILED.replace("        - python\n", "        - 'python'\n"))
    refused = root / "refused.yaml"
    refused.write_text(COMPILED.replace("pipelineInfo:", "metadata: {commit: x}\npipelineInfo:"))
    outcomes = compiled(root, [job(root, file), job(root, other), job(root, refused)])
    assert good(outcomes["stamped"]).text == file.read_text()
    assert good(outcomes["other_layout"]).text == COMPILED
    error = outcomes["refused"]
    assert isinstance(error, UsageError)
    assert error.message.startswith("refused.yaml: kfp refuses it: ")
    assert "metadata" in error.message


def test_every_wrong_template_is_told_with_its_line_and_hurts_no_other(root: Path) -> None:
    (root / "pipeline_templates" / "_bad.py").write_text("\nraise ValueError('no')\n")
    before = sorted(path for path in root.rglob("*") if "logs" not in path.parts)
    todo = jobs(root, {**{name: text for name, (text, _message) in WRONG.items()}, "training": TEMPLATE})
    outcomes = compiled(root, todo)
    for name, (_text, message) in WRONG.items():
        error = outcomes[name]
        assert isinstance(error, UsageError), name
        assert error.message.startswith(f"pipeline_templates/{message}"), name
        assert error.next_step, name
    assert good(outcomes["training"]).text == COMPILED
    assert (root / "trainshed.toml").exists()
    after = {path for path in root.rglob("*") if "logs" not in path.parts and path.suffix != ".py"}
    assert after <= {*before, root / "build", root / ".trainshed"}


def test_code_that_never_ends_is_ended_and_its_line_told(root: Path) -> None:
    deaf = "import signal, faulthandler\nfaulthandler.cancel_dump_traceback_later()\nsignal.signal(signal.SIGTERM, signal.SIG_IGN)\n"
    sources = {"sleeps": "import time\n\ntime.sleep(3600)\n", "deaf": deaf + "while True:\n    pass\n"}
    outcomes = compiled(root, jobs(root, sources), limit=4.0)
    told = {name: outcome.message for name, outcome in outcomes.items() if isinstance(outcome, UsageError)}
    assert told["sleeps"] == "pipeline_templates/sleeps.py:3: still running after 4 s"
    assert told["deaf"] == "pipeline_templates/deaf.py: still running after 4 s"


def test_code_that_ends_its_process_without_a_word_is_told(root: Path) -> None:
    crash = "import ctypes\nctypes.string_at(0)\n"
    outcome = compiled(root, jobs(root, {"crashes": crash}))["crashes"]
    assert isinstance(outcome, UsageError)
    assert outcome.message == "pipeline_templates/crashes.py: ended its process (code -11)"


def test_the_environment_is_empty_and_what_is_printed_goes_to_the_log(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SECRET_TOKEN", "s3cret")
    monkeypatch.setenv("KFP_DISABLE_EXECUTION_CACHING_BY_DEFAULT", "true")
    text = (
        "import os, random\nfrom pathlib import Path\nimport _words\n"
        "print(sorted(name for name in os.environ if not name.startswith('COVERAGE_')))\n"
        "print(os.getcwd(), os.environ['COMPONENTS'], Path.home() == Path(os.environ['TMPDIR']), list(Path.home().iterdir()))\n"
        "Path(os.environ['TMPDIR'], 'mine').write_text('may be written')\n"
        + PIPELINE
        + "\n@dsl.pipeline\ndef prints():\n    step(word=_words.WORD)\n"
    )
    (root / "pipeline_templates" / "_words.py").write_text("WORD = 'ü'\n")
    outcome = good(compiled(root, jobs(root, {"prints": text}))["prints"])
    assert outcome.notes == ("pipeline_templates/prints.py:4: prints while it is compiled; see the log",)
    assert "pipeline_templates/_words.py" in outcome.reads
    assert "enableCache: true" in outcome.text
    log = (root / "build" / "logs" / "prints.log").read_text()
    allowed = {"COMPONENTS", "HOME", "LC_ALL", "LD_LIBRARY_PATH", "LOGNAME", "PATH", "PYTHONHASHSEED", "PYTHONUTF8", "TMPDIR", "TZ"}
    names, place = log.splitlines()[:2]
    assert {name.strip("' ") for name in names.strip("[]").split(",")} <= allowed
    assert place == f"{root} {root / 'components'} True []"


VARYING = {
    "clock": ("import datetime", "str(datetime.datetime.now(datetime.timezone.utc).year)"),
    "days": ("from datetime import date", "date.today().isoformat()"),
    "seconds": ("import time", "str(int(time.time()) // 3600)"),
    "formatted": ("import time", "time.strftime('%Y')"),
    "chance": ("import random", "str(random.random())"),
    "unique": ("import uuid", "str(uuid.uuid4())"),
    "home": ("from pathlib import Path", "str(Path.home())"),
    "places": ("", "str(id(object()))"),
    "sets": ("", "'-'.join({'a', 'b', 'c', 'd', 'e', 'f', 'g', 'h'})"),
    "listing": ("from pathlib import Path", "'-'.join(path.name for path in Path('components').iterdir())"),
    "globbing": ("import glob", "'-'.join(glob.glob('components/*/component.yaml'))"),
    "walking": ("import os", "'-'.join(name for folder in os.walk('components') for name in folder[1])"),
    "host": ("import socket", "socket.gethostname()"),
    "node": ("import platform", "platform.node() + platform.uname().node"),
    "user": ("import getpass", "getpass.getuser()"),
}


def test_what_differs_each_time_is_told_with_its_place_and_all_else_stays(root: Path) -> None:
    steady = (
        "import datetime, random\nfrom pathlib import Path\nrandom.seed(7)\nday = datetime.date(2024, 2, 29)\n"
        "assert isinstance(datetime.datetime.now(), datetime.date)\nassert isinstance(day, datetime.date)\n"
        "import os, pickle, tempfile\n"
        "assert sorted(os.listdir(path='components')) == sorted(each.name for each in os.scandir(path='components'))\n"
        "assert pickle.loads(pickle.dumps(datetime.datetime.now())) > datetime.datetime(2024, 2, 29)\n"
        "with tempfile.TemporaryDirectory() as folder:\n    Path(folder, 'words').write_text('at ' + str(datetime.datetime.now()))\n"
        "words = [*sorted({'b', 'a'}), str(random.random()), str(day), *sorted(file.name for file in Path('components').iterdir())]\n"
        "words.append(str(datetime.datetime.fromtimestamp(0, datetime.timezone.utc)))\n"
    )
    sources = {
        name: f"{begin}\n{PIPELINE}\n@dsl.pipeline\ndef {name}():\n    step(word={value})\n" for name, (begin, value) in VARYING.items()
    }
    sources["anchored"] = f"{PIPELINE}\n@dsl.pipeline\ndef anchored():\n    step(word=__file__)\n"
    sources["literal"] = f"import os\n{PIPELINE}\n@dsl.pipeline\ndef literal():\n    step(word='{root}/data')\n"
    sources["steady"] = f"{steady}{PIPELINE}\n@dsl.pipeline\ndef steady():\n    step(word=' '.join(words))\n"
    sources["second"] = (
        f"import time\nassert time.time() < {time.time() + 86400}\n{PIPELINE}\n@dsl.pipeline\ndef second():\n    step(word='x')\n"
    )
    outcomes = compiled(root, jobs(root, sources))
    for name in VARYING:
        error = outcomes[name]
        assert isinstance(error, UsageError), name
        place = "root.dag.tasks.step.inputs.parameters.word.runtimeValue.constant"
        assert error.message == f"pipeline_templates/{name}.py: compiles to something else each time; first at {place}"
        assert error.next_step.startswith("Look there for what comes from a set, random, uuid, the clock, ")
    anchored = outcomes["anchored"]
    assert isinstance(anchored, UsageError)
    assert anchored.message == (
        f"pipeline_templates/anchored.py: holds the path of a folder of this machine, {root}; "
        "first at root.dag.tasks.step.inputs.parameters.word.runtimeValue.constant"
    )
    assert f"{root}/data" in good(outcomes["literal"]).text
    assert "2024-02-29 extract train 1970-01-01" in " ".join(good(outcomes["steady"]).text.split())
    failing = outcomes["second"]
    assert isinstance(failing, UsageError)
    assert failing.message == "pipeline_templates/second.py:2: AssertionError (only when it is compiled a second time)"


def test_no_context_and_no_variable_of_kubeflow_is_seen(root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    context = tmp_path / ".config" / "kfp" / "context.json"
    context.parent.mkdir(parents=True)
    context.write_text('{"namespace": "mine", "client_authentication_header_value": "s3cret"}')
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("KF_PIPELINES_NAMESPACE", "mine")
    monkeypatch.setenv("KF_PIPELINES_ENDPOINT", "http://127.0.0.1:9")
    text = (
        "import os\nfrom kfp import Client\n"
        "print(os.path.exists(os.path.expanduser('~/.config/kfp/context.json')), os.path.exists(Client._LOCAL_KFP_CONTEXT))\n"
        "print([name for name in os.environ if name.startswith('KF')])\n"
        + PIPELINE
        + "\n@dsl.pipeline\ndef hermetic():\n    step(word='x')\n"
    )
    good(compiled(root, jobs(root, {"hermetic": text}))["hermetic"])
    assert (root / "build" / "logs" / "hermetic.log").read_text().splitlines()[:2] == ["False False", "[]"]


def test_nothing_to_compile_starts_nothing(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(settings, "interpreter", lambda: "/nowhere/python")
    assert compiled(root, []) == {}


def test_a_python_without_kfp_is_a_missing_tool(root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    python = tmp_path / "python"
    python.write_text(
        "#!/bin/sh\nfor last; do :; done\n"
        f"exec {settings.interpreter()} -c \"import sys; sys.modules['kfp'] = None; "
        'from trainshed.pipelines import child; sys.exit(child.main([sys.argv[1]]))" "$last"\n'
    )
    python.chmod(0o755)
    monkeypatch.setattr(settings, "interpreter", lambda: str(python))
    with pytest.raises(ToolMissing, match="kfp cannot be imported"):
        compiled(root, jobs(root, {"training": TEMPLATE}))
    python.write_text("#!/bin/sh\necho broken >&2\nexit 9\n")
    with pytest.raises(process.ProcessFailed, match="ended with code 9:\nbroken"):
        compiled(root, jobs(root, {"training": TEMPLATE}))


def test_an_interruption_ends_the_compiler_and_leaves_nothing(root: Path) -> None:
    todo = jobs(root, {"waits": "import time\ntime.sleep(3600)\n"})
    timer = threading.Timer(1.0, process.stopping.set)
    timer.start()
    try:
        with pytest.raises(Interrupted):
            compiled(root, todo, limit=3600)
    finally:
        timer.cancel()
        process.stopping.clear()
    assert list((root / ".trainshed").iterdir()) == []


def test_a_killed_command_leaves_no_compiler_behind(root: Path) -> None:
    code = (
        "import sys; from pathlib import Path; from trainshed.tools.compiler import *; root = Path(sys.argv[1]);"
        "job = Job(name='waits', source=root / 'pipeline_templates/waits.py', kind='python', log=root / 'build/logs/waits.log');"
        "compile_all([job], root=root, components=root / 'components', scratch=root / '.killed', limit=3600)"
    )
    jobs(root, {"waits": "import os, time\nopen(os.environ['TMPDIR'] + '/began', 'w').close()\ntime.sleep(3600)\n"})
    with subprocess.Popen([sys.executable, "-c", code, str(root)]) as command:
        wait_for(lambda: bool(list((root / ".killed").glob("*/home/began"))))
        assert compilers(root)
        command.kill()
    wait_for(lambda: not compilers(root))


def compilers(root: Path) -> list[str]:
    """Return the command lines of the compilers of a project that are alive."""
    found = []
    for entry in Path("/proc").glob("[0-9]*"):
        with contextlib.suppress(OSError):
            line = (entry / "cmdline").read_bytes().decode(errors="replace")
            if "trainshed.pipelines.child" in line and str(root) in line:
                found.append(line)
    return found


def wait_for(condition: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 60
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.05)
