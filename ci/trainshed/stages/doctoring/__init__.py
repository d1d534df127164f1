"""What `doctor` looks at: this machine, and the services that the environment names."""
