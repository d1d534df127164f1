"""Pipeline templates: found, read, stamped and proved. Pure, but for `child`, the program that runs a template's own code."""
