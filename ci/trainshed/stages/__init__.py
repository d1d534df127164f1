"""One module per stage, one function with named, typed arguments each."""
