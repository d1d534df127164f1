"""The embedded Prediction Service: the ECS protocol on loopback, each task a container, one stable address per service."""
