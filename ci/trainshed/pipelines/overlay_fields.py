"""The fields in which kfp keeps a step's settings.

CPU, memory and accelerators stand at the executor in the first document, each twice: as text, and as a number for older servers.
All else stands in the second document under the executor's label, in the fields of kfp-kubernetes.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

from trainshed.pipelines import overlay_settings
from trainshed.pipelines.documents import Document
from trainshed.pipelines.overlay_settings import Key

_NUMBERS: Mapping[str, Callable[[str], float]] = {"cpu": overlay_settings.cpus, "memory": overlay_settings.gigabytes}
_NONE = "0"


class Step:
    """One executor: its container, and its settings of the platform, both changed in place.

    ``made`` has what was set, what to, and what was there before. ``problems`` is what does not go together with the template.
    """

    def __init__(self, container: Document, platform: Document) -> None:
        self.container, self.platform = container, platform
        self.made: list[tuple[str, str, str | None]] = []
        self.problems: list[str] = []

    def write(self, values: Mapping[Key, Any]) -> None:
        """Write settings; those of the template that have the same key are replaced, the others stay."""
        for kind, work in self._work().items():
            chosen = {key[1:]: value for key, value in values.items() if key[0] == kind}
            if not chosen:
                continue
            try:
                work(kind, chosen)
            except ValueError as error:
                self.problems.append(f"{kind}: {error}")

    def _work(self) -> Mapping[str, Callable[[str, Mapping[Key, Any]], None]]:
        return {
            "cpu": self._amounts,
            "memory": self._amounts,
            "accelerator": self._accelerator,
            "node-selector": self._node_selector,
            "tolerations": self._tolerations,
            "secrets": self._secrets,
            "pull-policy": self._pull_policy,
            "labels": self._metadata,
            "annotations": self._metadata,
        }

    def _amounts(self, kind: str, values: Mapping[Key, str]) -> None:
        resources = _table(self.container, "resources")
        for (name,), text in values.items():
            new, old = f"resource{kind.title()}{name.title()}", f"{kind}{name.title()}"
            before = resources.get(new, resources.get(old))
            resources |= {new: text, old: _NUMBERS[kind](text)}
            self._note(f"{kind}.{name}", text, before)
        least, most = (resources.get(f"{kind}{name}") for name in ("Request", "Limit"))
        if isinstance(least, float) and isinstance(most, float) and least > most:
            told = [resources.get(f"resource{kind.title()}{name}", value) for name, value in (("Request", least), ("Limit", most))]
            raise ValueError(f"the request {told[0]} is more than the limit {told[1]}; set both")

    def _accelerator(self, kind: str, values: Mapping[Key, Any]) -> None:
        resources = _table(self.container, "resources")
        before = _table(resources, kind)
        has_type, has_count = (before.get(f"resource{name.title()}") or before.get(name) for name in ("type", "count"))
        named = values.get(("type",), has_type)
        count = str(values.get(("count",), has_count or 1))
        if not named and count != _NONE:
            raise ValueError("count needs a type, which the template does not have")
        del resources[kind]
        if count != _NONE:
            resources[kind] = {"resourceType": named, "resourceCount": count}
            resources[kind] |= {name: text for name, text in (("type", named), ("count", count)) if "{{" not in text}
        if not resources:
            del self.container["resources"]
        told = f"{has_count} of {has_type}" if before else None
        if count != _NONE or told:
            self._note(kind, f"{count} of {named}" if count != _NONE else "none", told)

    def _node_selector(self, kind: str, values: Mapping[Key, str]) -> None:
        selector = _table(self.platform, "nodeSelector")
        if "nodeSelectorJson" in selector:
            raise ValueError("the template takes the node selector from a parameter")
        self._texts(kind, _table(selector, "labels"), values)

    def _metadata(self, kind: str, values: Mapping[Key, str]) -> None:
        self._texts(kind, _table(_table(self.platform, "podMetadata"), kind), values)

    def _texts(self, kind: str, table: Document, values: Mapping[Key, str]) -> None:
        for (name,), text in values.items():
            self._note(f"{kind}.{name}", text, table.get(name))
            table[name] = text

    def _tolerations(self, kind: str, values: Mapping[Key, Sequence[Mapping[str, str]]]) -> None:
        found = _list(self.platform, kind)
        for named, tolerations in values.items():
            same = [item for item in found if (item.get("key", ""), item.get("effect", "")) == named and "tolerationJson" not in item]
            at = found.index(same[0]) if same else len(found)
            found = [item for item in found if item not in same]
            found[at:at] = [dict(each) for each in tolerations]  # copies: YAML would write shared ones as aliases
            self._note(kind, _told(tolerations), _told(same) if same else None)
        self.platform[kind] = found

    def _pull_policy(self, kind: str, values: Mapping[Key, str]) -> None:
        self._note(kind, values[()], self.platform.get("imagePullPolicy"))
        self.platform["imagePullPolicy"] = values[()]

    def _secrets(self, kind: str, values: Mapping[Key, tuple[str, str]]) -> None:
        """Write variables from secrets; what sets the same variables in another way goes, or one of the two would win by chance."""
        names = {name for (name,) in values}
        before = self._variables_dropped(names)
        found = [entry for entry in _list(self.platform, "secretAsEnv") if entry.get("keyToEnv")]
        by_secret: dict[str, list[dict[str, str]]] = {}
        for (name,), (secret, key) in values.items():
            by_secret.setdefault(secret, []).append({"envVar": name, "secretKey": key})
            self._note(f"{kind}.{name}", f"{secret}#{key}", before.get(name))
        for secret, variables in by_secret.items():
            parameter = {"runtimeValue": {"constant": secret}}
            found.append({"keyToEnv": variables, "optional": False, "secretName": secret, "secretNameParameter": parameter})
        self.platform["secretAsEnv"] = found

    def _variables_dropped(self, names: set[str]) -> dict[str, str]:
        """Take variables away wherever the template sets them; return what each was, in words."""
        before: dict[str, str] = {}
        kept = [item for item in _list(self.container, "env") if item.get("name") not in names]
        before |= {item["name"]: "a plain value" for item in self.container["env"] if item.get("name") in names}
        _keep(self.container, "env", kept)
        for field_name, words in (("secretAsEnv", "another secret"), ("configMapAsEnv", "a config map")):
            for entry in _list(self.platform, field_name):
                before |= {item["envVar"]: words for item in _list(entry, "keyToEnv") if item.get("envVar") in names}
                entry["keyToEnv"] = [item for item in entry["keyToEnv"] if item.get("envVar") not in names]
            _keep(self.platform, field_name, [entry for entry in self.platform[field_name] if entry["keyToEnv"]])
        fields = _list(self.platform, "fieldPathAsEnv")
        before |= {item["name"]: "a field of the pod" for item in fields if item.get("name") in names}
        _keep(self.platform, "fieldPathAsEnv", [item for item in fields if item.get("name") not in names])
        return before

    def _note(self, key: str, value: str, before: object) -> None:
        if before != value:
            self.made.append((key, value, None if before is None else str(before)))


def _table(parent: Document, key: str) -> Document:
    found = parent.setdefault(key, {})
    if not isinstance(found, dict):
        raise ValueError(f"the pipeline's {key} is no mapping")
    return found


def _list(parent: Document, key: str) -> list[Document]:
    found = parent.setdefault(key, [])
    if not isinstance(found, list) or not all(isinstance(item, dict) for item in found):
        raise ValueError(f"the pipeline's {key} is no list of mappings")
    return found


def _keep(parent: Document, key: str, items: list[Document]) -> None:
    if items:
        parent[key] = items
    else:
        del parent[key]


def _told(tolerations: Iterable[Mapping[str, Any]]) -> str:
    names = ("key", "operator", "value", "effect", "tolerationSeconds")
    return ", ".join(" ".join(str(each[name]) for name in names if name in each) for each in tolerations)
