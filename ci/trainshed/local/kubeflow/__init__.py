"""The embedded Kubeflow: the v2beta1 REST API on loopback, whose runs are real containers."""
