"""A small compiled pipeline as kfp 2.17 writes it, its lock's images, and a project that has it."""

from __future__ import annotations

from pathlib import Path

DIGEST = "sha256:" + "a" * 64
OTHER_DIGEST = "sha256:" + "b" * 64
IMAGES = {name: f"127.0.0.1:5000/small/{name}@{DIGEST}" for name in ("extract", "train")}

COMPILED = """\
# PIPELINE DEFINITION
# Name: small-training
# Description: Trains.
#              In two lines.
# Inputs:
#    seed: int [Default: 7.0]
components:
  comp-extract:
    executorLabel: exec-extract
    outputDefinitions:
      artifacts:
        table:
          artifactType:
            schemaTitle: system.Dataset
            schemaVersion: 0.0.1
  comp-train:
    executorLabel: exec-train
    inputDefinitions:
      artifacts:
        table:
          artifactType:
            schemaTitle: system.Dataset
            schemaVersion: 0.0.1
      parameters:
        seed:
          parameterType: NUMBER_INTEGER
deploymentSpec:
  executors:
    exec-extract:
      container:
        args:
        - --table
        - '{{$.outputs.artifacts[''table''].path}}'
        command:
        - python
        - /app/extract.py
        image: component.invalid/extract:unstamped
    exec-train:
      container:
        args:
        - --table
        - '{{$.inputs.artifacts[''table''].path}}'
        - --seed
        - '{{$.inputs.parameters[''seed'']}}'
        command:
        - python
        - /app/train.py
        env:
        - name: NOTE
          value: plain
        image: component.invalid/train:unstamped
pipelineInfo:
  description: 'Trains.

    In two lines.'
  name: small-training
root:
  dag:
    tasks:
      extract:
        cachingOptions:
          enableCache: true
        componentRef:
          name: comp-extract
        taskInfo:
          name: extract
      train:
        cachingOptions:
          enableCache: true
        componentRef:
          name: comp-train
        dependentTasks:
        - extract
        inputs:
          artifacts:
            table:
              taskOutputArtifact:
                outputArtifactKey: table
                producerTask: extract
          parameters:
            seed:
              componentInputParameter: seed
        taskInfo:
          name: train
  inputDefinitions:
    parameters:
      seed:
        defaultValue: 7.0
        description: Seed of the split.
        isOptional: true
        parameterType: NUMBER_INTEGER
schemaVersion: 2.1.0
sdkVersion: kfp-2.17.0
---
platforms:
  kubernetes:
    deploymentSpec:
      executors:
        exec-train:
          nodeSelector:
            labels:
              workload: training
"""

TEMPLATE = '''\
"""A small training pipeline."""

from kfp import components, dsl, kubernetes

extract = components.load_component_from_file("components/extract/component.yaml")
train = components.load_component_from_file("components/train/component.yaml")


@dsl.pipeline(name="small-training", description="Trains.\\nIn two lines.")
def training(seed: int = 7) -> None:
    """Train.

    Args:
        seed: Seed of the split.
    """
    step = train(table=extract().outputs["table"], seed=seed)
    step.set_env_variable("NOTE", "plain")
    kubernetes.add_node_selector(step, label_key="workload", label_value="training")
'''

_COMPONENTS = {
    "extract": """\
name: Extract
outputs:
- {name: table, type: Dataset}
implementation:
  container:
    image: component.invalid/extract:unstamped
    command: [python, /app/extract.py]
    args: [--table, {outputPath: table}]
""",
    "train": """\
name: Train
inputs:
- {name: table, type: Dataset}
- {name: seed, type: Integer}
implementation:
  container:
    image: component.invalid/train:unstamped
    command: [python, /app/train.py]
    args: [--table, {inputPath: table}, --seed, {inputValue: seed}]
""",
}


def write_project(root: Path) -> Path:
    """Write a project with two steps on no base at all, and one template, ``training``; return its root."""
    root.mkdir(parents=True, exist_ok=True)
    (root / "trainshed.toml").write_text('[project]\nname = "small"\n')
    for name, text in _COMPONENTS.items():
        folder = root / "components" / name
        folder.mkdir(parents=True)
        (folder / "component.yaml").write_text(text)
        (folder / "Dockerfile").write_text(f"FROM scratch\nCOPY {name}.py /app/{name}.py\n")
        (folder / f"{name}.py").write_text("")
    (root / "pipeline_templates").mkdir()
    (root / "pipeline_templates" / "training.py").write_text(TEMPLATE)
    return root
