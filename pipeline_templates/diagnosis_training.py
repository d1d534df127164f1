"""Trains and measures a classifier of tumours; see docs/how-to/ for how to write a template of your own.

Trainshed compiles this file with the repository's root as the working folder. Every image in the component files is a reserved
reference, into which `trainshed stamp` writes the digest of the image that was built, scanned and tested.
"""

from kfp import components, dsl, kubernetes

extract = components.load_component_from_file("components/extract/component.yaml")
preprocess = components.load_component_from_file("components/preprocess/component.yaml")
train = components.load_component_from_file("components/train/component.yaml")
evaluate = components.load_component_from_file("components/evaluate/component.yaml")


@dsl.pipeline(name="diagnosis-training", description="Trains and measures a classifier of tumours.")
def diagnosis_training(
    rows: int = 0,
    test_share: float = 0.25,
    seed: int = 7,
    strength: float = 1.0,
    iterations: int = 1000,
) -> None:
    """Train on one part of the table, measure on the other.

    Args:
        rows: Rows to use, from the first; 0 uses all.
        test_share: Share of the rows to keep for the test, between 0 and 1.
        seed: Seed of the split.
        strength: Inverse of the regularisation: smaller is smoother.
        iterations: Limit of the solver's iterations.
    """
    extracted = extract(rows=rows)
    split = preprocess(table=extracted.outputs["table"], test_share=test_share, seed=seed)
    trained = train(train=split.outputs["train"], strength=strength, iterations=iterations)
    trained.set_cpu_limit("1").set_memory_limit("1G")
    # On a cluster the training step runs on the nodes that are meant for it; the embedded Kubeflow has no nodes to choose from.
    kubernetes.add_node_selector(trained, label_key="workload", label_value="training")
    evaluate(model=trained.outputs["model"], test=split.outputs["test"])
