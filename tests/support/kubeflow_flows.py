"""Pipelines in KFP's own language; kfp reads annotations as objects, so they cannot be postponed here."""
# mypy: disable-error-code="untyped-decorator,valid-type"

from pathlib import Path
from typing import Any, Optional

from kfp import compiler, dsl

from tests.support.kubeflow import IMAGE
from trainshed.pipelines import documents


@dsl.container_component
def say(word: str, said: dsl.OutputPath(str)) -> dsl.ContainerSpec:
    program = "import sys; print('saying', sys.argv[1]); open(sys.argv[2], 'w').write(sys.argv[1])"
    return dsl.ContainerSpec(image=IMAGE, command=["python3", "-c", program], args=[word, said])


@dsl.container_component
def keep(text: str, model: dsl.Output[dsl.Model]) -> dsl.ContainerSpec:
    program = "import sys; open(sys.argv[2], 'w').write(sys.argv[1])"
    return dsl.ContainerSpec(image=IMAGE, command=["python3", "-c", program], args=[text, model.path])


@dsl.container_component
def read(model: dsl.Input[dsl.Model], text: dsl.OutputPath(str)) -> dsl.ContainerSpec:
    program = "import sys; open(sys.argv[2], 'w').write(open(sys.argv[1]).read() + '!')"
    return dsl.ContainerSpec(image=IMAGE, command=["python3", "-c", program], args=[model.path, text])


@dsl.container_component
def linger(seconds: int) -> dsl.ContainerSpec:
    program = "import sys, time; print('lingering', flush=True); time.sleep(float(sys.argv[1]))"
    return dsl.ContainerSpec(image=IMAGE, command=["python3", "-c", program], args=[seconds])


@dsl.container_component
def tell(text: dsl.OutputPath(str), word: Optional[str] = None) -> dsl.ContainerSpec:  # noqa: UP045 - what kfp reads
    program = "import sys; open(sys.argv[1], 'w').write(sys.argv[2])"
    given = dsl.IfPresentPlaceholder("word", then=[word], else_=["nothing"])
    return dsl.ContainerSpec(image=IMAGE, command=["python3", "-c", program], args=[text, given])


@dsl.pipeline(name="hopeful")
def hopeful(word: Optional[str] = None) -> None:  # noqa: UP045 - what kfp reads
    """Hand on a parameter that may be absent."""
    tell(word=word)


@dsl.pipeline(name="chain")
def chain(word: str = "hello") -> None:
    """Hand a parameter on as a parameter and as an artifact."""
    read(model=keep(text=say(word=word).outputs["said"]).outputs["model"])


@dsl.pipeline(name="control")
def control(go: bool = True) -> None:
    """Branch and loop."""
    with dsl.If(go == True):  # noqa: E712 - what the DSL compiles
        say(word="yes")
    with dsl.If(go == False):  # noqa: E712 - what the DSL compiles
        keep(text="never")
    with dsl.ParallelFor(items=["a", "b", "c"], parallelism=1) as item:
        read(model=keep(text=item).outputs["model"])


@dsl.pipeline(name="slow")
def slow(seconds: int = 600) -> None:
    """Take as long as asked."""
    linger(seconds=seconds)


@dsl.pipeline
def inner(word: str) -> None:
    """Hand a word on, within another pipeline."""
    keep(text=say(word=word).outputs["said"])


@dsl.pipeline(name="whole")
def whole(go: bool = True) -> None:
    """Have a pipeline within, a loop, a condition, an importer and a task at the end of all."""
    with dsl.ExitHandler(exit_task=tell(word="the end")):
        first = inner(word="first")
        first.set_caching_options(False)
        with dsl.ParallelFor(items=["a", "b"], parallelism=1) as item:
            read(model=keep(text=item).outputs["model"])
        with dsl.If(go == False):  # noqa: E712 - what the DSL compiles
            say(word="never")
        read(model=dsl.importer(artifact_uri="s3://models/one", artifact_class=dsl.Model).output)


def importing(file: Path) -> Any:
    """Return a pipeline that reads a file of this machine."""

    @dsl.pipeline(name="imports")
    def imports() -> None:
        read(model=dsl.importer(artifact_uri=str(file), artifact_class=dsl.Model).output)

    return imports


def write(pipeline: Any, folder: Path) -> Path:
    """Compile a pipeline into a file of the folder."""
    file = folder / f"{pipeline.name}.yaml"
    compiler.Compiler().compile(pipeline, str(file))
    return file


def compiled(pipeline: Any, folder: Path) -> dict[str, Any]:
    """Return the IR of a pipeline."""
    return dict(documents.load(write(pipeline, folder).read_text(), place=pipeline.name)[0])
