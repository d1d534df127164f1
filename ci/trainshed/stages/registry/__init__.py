"""What `trainshed registry` does: repositories in ECR, and images that go from one registry to another."""
