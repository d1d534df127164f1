"""The parts of a deployment: what is verified first, how it is followed, what is recorded and cleaned up."""
