"""The only code that starts a process or opens a socket, one module per outside thing."""
