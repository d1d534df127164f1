"""Which component stands on which: own bases come in through build arguments, ``ARG BASE_PYTHON=…`` and ``FROM ${BASE_PYTHON}``."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from trainshed.errors import UsageError, problems
from trainshed.images import references
from trainshed.images.components import Component
from trainshed.images.dockerfile import SCRATCH, External, Stage
from trainshed.images.instructions import fault


def base_argument(component: str) -> str:
    """Return the build argument that hands an own base in: ``base-python`` → ``BASE_PYTHON``."""
    return component.upper().replace("-", "_")


@dataclass(frozen=True)
class _Needs:
    own: tuple[str, ...]
    foreign: tuple[str, ...]


@dataclass(frozen=True, kw_only=True)
class Graph:
    """The graph of own bases; made by `Graph.of`."""

    _all: Mapping[str, _Needs]
    _image: Mapping[str, _Needs]
    _ancestors: Mapping[str, frozenset[str]]
    """By name, bases first."""

    @classmethod
    def of(cls, components: Mapping[str, Component], args: Mapping[str, str]) -> Graph:
        """Build the graph; ``args`` are the project's build arguments, each component's own are laid over.

        Raises:
            UsageError: all problems at once: a cycle, an own base without default, an argument that cannot be resolved.
        """
        owners = {base_argument(name): name for name in components}
        of_all, of_image, wrong = dict[str, _Needs](), dict[str, _Needs](), list[str]()
        for name, component in components.items():
            reader = _Reader(component, {**args, **component.settings.args}, owners)
            of_all[name] = reader.needs(component.dockerfile.stages)
            of_image[name] = reader.needs(component.dockerfile.needed(None))
            wrong += dict.fromkeys(reader.wrong)
        ancestors = _ancestors(of_all)
        way = _cycle(of_all, set(of_all).difference(ancestors))
        if way:
            wrong.append(f"{components[way[0]].dockerfile.path}: a cycle of bases: {' → '.join(way)}")
        if wrong:
            raise problems(wrong, next_step="Mend the Dockerfiles that are named; nothing was done.")
        return cls(_all=of_all, _image=of_image, _ancestors=ancestors)

    def bases(self, name: str) -> tuple[str, ...]:
        """Return the own bases that any stage (the test stage too) stands on directly, sorted."""
        return self._all[name].own

    def foreign(self, name: str) -> tuple[str, ...]:
        """Return the normalised references from outside that any stage needs, sorted; no ``scratch``."""
        return self._all[name].foreign

    def image_bases(self, name: str) -> tuple[str, ...]:
        """Return the keys of `image_inputs`'s ``bases``: own bases by name, foreign ones normalised; none that only tests need."""
        return self._image[name].own + self._image[name].foreign

    def test_bases(self, name: str) -> tuple[str, ...]:
        """Return what only stages beside the image's stand on, keyed as `image_bases`."""
        image = self.image_bases(name)
        return tuple(key for key in self._all[name].own + self._all[name].foreign if key not in image)

    def ancestors(self, name: str) -> frozenset[str]:
        """Return all own bases below a component."""
        return self._ancestors[name]

    def order(self) -> list[str]:
        """Return all names, bases first; by name where nothing else decides."""
        return list(self._ancestors)

    def waves(self, names: Iterable[str]) -> list[list[str]]:
        """Return the names in waves, each sorted: a wave stands only on earlier ones (or on what is not among the names)."""
        wanted, depth, waves = set(names), dict[str, int](), dict[int, list[str]]()
        for name in self._ancestors:
            below = max((depth[base] for base in self._all[name].own), default=0)
            depth[name] = below + (name in wanted)
            if name in wanted:
                waves.setdefault(depth[name], []).append(name)
        return [sorted(waves[number]) for number in sorted(waves)]


class _Reader:
    """Tells own bases from foreign ones in one Dockerfile, and collects what is wrong."""

    def __init__(self, component: Component, args: Mapping[str, str], owners: Mapping[str, str]) -> None:
        self.component, self.args, self.owners = component, args, owners
        self.wrong: list[str] = []

    def needs(self, stages: Iterable[Stage]) -> _Needs:
        own, foreign = set[str](), set[str]()
        for external in self.component.dockerfile.externals(stages):
            try:
                name = self._own(external)
                reference = "" if name else self.component.dockerfile.resolve(external, self.args)
                if reference and references.component_of(reference):
                    raise self._written_out(external, reference)
            except UsageError as error:
                self.wrong.append(error.message)
                continue
            if name:
                own.add(name)
            elif reference != SCRATCH:
                foreign.add(reference)
        return _Needs(tuple(sorted(own)), tuple(sorted(foreign)))

    def _own(self, external: External) -> str | None:
        argument = external.argument
        name = self.owners.get(argument or "")
        if name is None or argument is None:
            return None
        dockerfile = self.component.dockerfile
        default = dockerfile.args.get(argument)
        if not default:
            message = f"the own base '{name}' needs a default, so that a plain `docker build` works"
            raise fault(dockerfile.path, external.line, f"{message}: ARG {argument}=<registry>/{name}:latest before the first FROM")
        dockerfile.resolve(external, {})
        return name

    def _written_out(self, external: External, reference: str) -> UsageError:
        argument = base_argument(references.component_of(reference) or "")
        message = f"{reference} stands for a component in templates only; here write ARG {argument}=… and FROM ${{{argument}}}"
        return fault(self.component.dockerfile.path, external.line, message)


def _ancestors(needs: Mapping[str, _Needs]) -> dict[str, frozenset[str]]:
    """Return everybody's ancestors, bases first; what lies on a cycle or above one is left out."""
    done: dict[str, frozenset[str]] = {}
    waiting = sorted(needs)
    while waiting:
        ready = [name for name in waiting if all(base in done for base in needs[name].own)]
        if not ready:
            break
        for name in ready:
            own = needs[name].own
            done[name] = frozenset(own).union(*(done[base] for base in own))
        waiting = [name for name in waiting if name not in done]
    return done


def _cycle(needs: Mapping[str, _Needs], left: set[str]) -> list[str]:
    """Return the way round a cycle among the components that could not be sorted, its first name again at the end."""
    if not left:
        return []
    way = [min(left)]
    while True:
        following = next(base for base in needs[way[-1]].own if base in left)
        if following in way:
            return [*way[way.index(following) :], following]
        way.append(following)
