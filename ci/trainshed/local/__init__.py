"""The embedded defaults: an engine, a registry, a Kubeflow and a Prediction Service on this machine."""
