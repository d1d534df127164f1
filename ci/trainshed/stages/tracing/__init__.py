"""The parts of ``trainshed trace``: what is meant, and what is known of it."""
