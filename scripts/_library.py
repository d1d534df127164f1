"""Write the shared library's step from the Jenkinsfile: ``scripts/_library.py``, or with ``--check`` only compare."""

from __future__ import annotations

import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
STEP = ROOT / "ci" / "jenkins" / "library" / "vars" / "trainshed.groovy"
HEAD = """// Written from the Jenkinsfile by scripts/_library.py: change it there.
// A repository's whole Jenkinsfile:   @Library('trainshed') _
//                                     trainshed(environment: 'dev')
def call(Map given = [:]) {
"""


def step(jenkinsfile: str) -> str:
    """Return the step: the pipeline as its ``call``, the functions beside it."""
    start = jenkinsfile.index("pipeline {\n")
    end = jenkinsfile.index("\n}\n", start) + len("\n}\n")
    pipeline = "".join(f"    {line}" if line.strip() else line for line in jenkinsfile[start:end].splitlines(keepends=True))
    return f"{HEAD}{pipeline}}}\n{jenkinsfile[end:]}"


def main() -> int:
    """Write the step, or tell whether it is up to date; return the exit code."""
    wanted = step((ROOT / "Jenkinsfile").read_text(encoding="utf-8"))
    if "--check" in sys.argv[1:]:
        if STEP.is_file() and STEP.read_text(encoding="utf-8") == wanted:
            return 0
        sys.stderr.write(f"error: {STEP.relative_to(ROOT)} is not what the Jenkinsfile says\nnext: Run scripts/_library.py.\n")
        return 1
    STEP.parent.mkdir(parents=True, exist_ok=True)
    STEP.write_text(wanted, encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main())
