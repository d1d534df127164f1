"""A pipeline of everything that kfp compiles: nested two deep, loops, conditions, an exit handler, an importer, a v1 component."""

from __future__ import annotations

from pathlib import Path

COMPONENTS = ("clean", "make", "show", "train")

TEMPLATE = '''\
"""Everything at once."""

from kfp import components, dsl, kubernetes

train = components.load_component_from_file("components/train/component.yaml")


@dsl.container_component
def make(n: int, out: dsl.OutputPath(str)):
    return dsl.ContainerSpec(image="component.invalid/make:unstamped", command=["make"], args=[n, out])


@dsl.container_component
def words(out: dsl.OutputPath(list)):
    return dsl.ContainerSpec(image="component.invalid/make:unstamped", command=["words"], args=[out])


@dsl.container_component
def show(text: str):
    return dsl.ContainerSpec(image="component.invalid/show:unstamped", command=["show"], args=[text])


@dsl.container_component
def look(model: dsl.Input[dsl.Model]):
    return dsl.ContainerSpec(image="component.invalid/show:unstamped", command=["look"], args=[model.path])


@dsl.container_component
def clean(status: dsl.PipelineTaskFinalStatus):
    return dsl.ContainerSpec(image="component.invalid/clean:unstamped", command=["clean"], args=[status])


@dsl.pipeline
def deepest(n: int) -> dsl.Model:
    made = make(n=n)
    show(text=made.outputs["out"])
    trained = train(table=made.outputs["out"])
    trained.set_cpu_limit("1").set_memory_limit("500Mi")
    kubernetes.add_node_selector(trained, label_key="workload", label_value="training")
    kubernetes.use_secret_as_env(trained, "tokens", {"key": "TOKEN"})
    return trained.outputs["model"]


@dsl.pipeline
def inner(n: int) -> dsl.Model:
    return deepest(n=n).output


@dsl.pipeline(name="everything")
def everything(n: int = 1):
    first = make(n=n)
    base = dsl.importer(artifact_uri="gs://models/base", artifact_class=dsl.Model)
    look(model=base.output)
    model = inner(n=n)
    look(model=model.output)
    with dsl.ParallelFor([1, 2]) as item:
        show(text=make(n=item).outputs["out"])
    with dsl.ParallelFor(words().outputs["out"]) as word:
        show(text=word).after(first)
        with dsl.If(first.outputs["out"] == "x"):
            show(text="x")
        with dsl.Else():
            train(table=first.outputs["out"])
    with dsl.ExitHandler(clean()):
        show(text="end").after(make(n=4))
        inner(n=7)
'''

_TRAIN = """\
name: Train
inputs:
- {name: table, type: String}
outputs:
- {name: model, type: Model}
implementation:
  container:
    image: component.invalid/train:unstamped
    command: [python, /app/train.py]
    args: [--table, {inputValue: table}, --model, {outputPath: model}]
"""

DIGEST = "sha256:" + "c" * 64
IMAGES = {name: f"127.0.0.1:5000/nested/{name}@{DIGEST}" for name in COMPONENTS}


def compiled() -> str:
    """Return what kfp makes of the template."""
    return (Path(__file__).parents[1] / "data" / "everything.yaml").read_text()


def write_project(root: Path) -> Path:
    """Write a project with these components and the template ``everything``; return its root."""
    (root / "pipeline_templates").mkdir(parents=True)
    (root / "pipeline_templates" / "everything.py").write_text(TEMPLATE)
    (root / "trainshed.toml").write_text('[project]\nname = "nested"\n')
    for name in COMPONENTS:
        (root / "components" / name).mkdir(parents=True)
        (root / "components" / name / "Dockerfile").write_text("FROM scratch\n")
    (root / "components" / "train" / "component.yaml").write_text(_TRAIN)
    return root
