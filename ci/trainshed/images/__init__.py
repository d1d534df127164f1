"""What an image is made of: components, Dockerfiles, the graph of bases, input digests. Pure: no process, no network."""
