"""Which component stands on which: own bases come in through build arguments."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from trainshed.images.components import Component


def base_argument(component: str) -> str:
    """Return the build argument that hands an own base in: ``base-python`` → ``BASE_PYTHON``."""
    return component.upper().replace("-", "_")


class Graph:
    """The graph of own bases; made by `Graph.of`."""

    @classmethod
    def of(cls, components: Mapping[str, Component], args: Mapping[str, str]) -> Graph:
        """Build the graph; ``args`` are the project's build arguments, each component's own are laid over.

        Raises:
            UsageError: all problems at once: a cycle, an own base without default, an argument that cannot be resolved.
        """
        raise NotImplementedError

    def bases(self, name: str) -> tuple[str, ...]:
        """Return the own bases that any stage (the test stage too) stands on directly, sorted."""
        raise NotImplementedError

    def foreign(self, name: str) -> tuple[str, ...]:
        """Return the references from outside that any stage needs, as resolved; no ``scratch``."""
        raise NotImplementedError

    def image_bases(self, name: str) -> tuple[str, ...]:
        """Return the keys of `inputs.image_inputs`'s ``bases``: own bases by component name, foreign ones as resolved; no test-only ones."""
        raise NotImplementedError

    def dependents(self, name: str, *, transitive: bool = True) -> frozenset[str]:
        """Return what stands on a component."""
        raise NotImplementedError

    def ancestors(self, name: str) -> frozenset[str]:
        """Return all own bases below a component."""
        raise NotImplementedError

    def order(self) -> list[str]:
        """Return all names, bases first; by name where nothing else decides."""
        raise NotImplementedError

    def waves(self, names: Iterable[str]) -> list[list[str]]:
        """Return the names in waves: each stands only on earlier waves (or on what is not among the names)."""
        raise NotImplementedError
