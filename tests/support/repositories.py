"""Real git repositories: one that is published, and clones of it as Jenkins checks out a pull request."""

from __future__ import annotations

import subprocess
from pathlib import Path


class Repository:
    """A git repository in a folder."""

    def __init__(self, root: Path) -> None:
        self.root = root

    @classmethod
    def new(cls, root: Path) -> Repository:
        """Make one on a branch ``main``; what is in the folder is not committed yet."""
        root.mkdir(parents=True, exist_ok=True)
        made = cls(root)
        made.git("init", "--quiet", "--initial-branch", "main")
        return made

    def clone(self, root: Path) -> Repository:
        """Clone it; ``origin/main`` is then what was committed here."""
        self.git("clone", "--quiet", str(self.root), str(root))
        return Repository(root)

    def git(self, *words: str) -> str:
        """Run git here, as nobody in particular."""
        identity = ["-c", "user.name=t", "-c", "user.email=t@example.org", "-c", "commit.gpgsign=false"]
        done = subprocess.run(["git", "-C", str(self.root), *identity, *words], check=True, capture_output=True, text=True, timeout=60)
        return done.stdout.strip()

    def write(self, path: str, text: str) -> Path:
        """Write a file."""
        file = self.root / path
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(text)
        return file

    def commit(self, message: str = "work") -> str:
        """Commit all there is; return the commit."""
        self.git("add", "--all")
        self.git("commit", "--quiet", "--allow-empty", "--message", message)
        return self.git("rev-parse", "HEAD")
