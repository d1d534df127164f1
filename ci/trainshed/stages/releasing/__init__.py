"""What a release is made of: its room, its journal, its steps, and how each is undone."""
