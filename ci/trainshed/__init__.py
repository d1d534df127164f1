"""Trainshed: build orchestration for the component images of a Kubeflow repository."""
