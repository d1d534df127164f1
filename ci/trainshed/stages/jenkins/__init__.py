"""``trainshed jenkins``: what an engineer's shell asks of the controller, and what a build asks of the configuration."""
