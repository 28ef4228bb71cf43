"""Nodes -> the levels of the network that their labels speak of, widest first.

`auto_levels` finds every well-known family; `own_levels` takes the keys that a person names, one level a key. Three
decisions: kubernetes.io/hostname is no level, since it is the node itself; a level that all nodes share stays, so that
"within one zone" means something in a cluster of one zone; the two levels of NVLink are one where they say the same.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace

from ring_operator.topology.families import CLIQUE, HOST, KNOWN, NVLINK, NVLINK_DOMAIN, Source, Step, sources_of
from ring_operator.topology.nodes import HOSTNAME, Node
from ring_operator.topology.tree import Level


@dataclass(frozen=True, slots=True)
class Reading:
    """How one level is read off a node's labels: the first of `sources` that it carries."""

    name: str
    sources: tuple[Source, ...]
    expected: bool = True

    def value(self, labels: Mapping[str, str]) -> str:
        """Unique among all sources of the level; empty where the node carries none."""
        for source in self.sources:
            found = source.read(labels)
            if found:
                return found if len(self.sources) == 1 else f"{source.word}={found}"
        return ""

    @property
    def keys(self) -> tuple[str, ...]:
        return tuple(dict.fromkeys(source.key for source in self.sources))


def auto_levels(nodes: Sequence[Node]) -> tuple[Reading, ...]:
    """Of every well-known label that some node carries."""
    carried = _carried(nodes)
    steps: dict[Step, list[Source]] = {}
    for source in carried:
        steps.setdefault(source.step, []).append(source)
    widest_first = sorted(steps, reverse=True)
    found = {step: Reading(step.name, _by_use(steps[step], carried), step.expected) for step in widest_first}
    return tuple(_without_host(_one_nvlink(found, nodes), nodes).values())


def own_levels(keys: Iterable[str]) -> tuple[Reading, ...]:
    """One level a key, widest first, under its well-known name or the key's last part."""
    chosen = [key for key in dict.fromkeys(keys) if key != HOSTNAME]
    names = _names(chosen)
    return tuple(Reading(name, (Source(key, Step(0, name)),)) for key, name in zip(chosen, names, strict=True))


def _names(keys: Sequence[str]) -> list[str]:
    """Each once: by step where that is unique, else by the key's last part, else the whole key."""
    steps = [_step_name(key) for key in keys]
    words = [key.rpartition("/")[2] for key in keys]
    names: list[str] = []
    for step, word, key in zip(steps, words, keys, strict=True):
        choices = [step if steps.count(step) == 1 else "", word if words.count(word) == 1 else "", key]
        names.append(next(choice for choice in choices if choice and choice not in names))
    return names


def _step_name(key: str) -> str:
    sources = sources_of(key)
    return sources[-1].step.name if sources else ""


def _carried(nodes: Sequence[Node]) -> Counter[Source]:
    """By how many nodes. The keys of most nodes are the same, so they are looked at once."""
    shapes = Counter(tuple(node.labels) for node in nodes)
    keys: Counter[str] = Counter()
    for shape, count in shapes.items():
        for key in shape:
            keys[key] += count
    sources = [source for key in keys for source in sources_of(key)]
    counts = {s: sum(1 for node in nodes if s.read(node.labels)) for s in sources}
    return Counter({source: count for source, count in counts.items() if count})


def _by_use(sources: Iterable[Source], carried: Mapping[Source, int]) -> tuple[Source, ...]:
    return tuple(sorted(sources, key=lambda s: (s.last, -carried[s], _rank(s), s.key)))


def _rank(source: Source) -> int:
    return KNOWN.index(source) if source in KNOWN else -1  # tiers of Topograph 1.x come first


def _one_nvlink(found: dict[Step, Reading], nodes: Sequence[Node]) -> dict[Step, Reading]:
    """A node without a part of its own has the whole domain; both are one level where no domain has two parts."""
    wide = found.get(NVLINK_DOMAIN)
    if wide is None:
        return found
    narrow = found.get(NVLINK)
    both = Reading(NVLINK.name, (*(narrow.sources if narrow else ()), *wide.sources), expected=False)
    merged = {**{s: r for s, r in found.items() if s.width > NVLINK_DOMAIN.width}}
    if narrow is not None and _says_more(both, wide, nodes):
        merged[NVLINK_DOMAIN] = wide
    merged[NVLINK] = _plain(both)
    return {**merged, **{s: r for s, r in found.items() if s.width < NVLINK.width}}


def _plain(reading: Reading) -> Reading:
    """A clique stands for its cluster already."""
    if any(s.key == CLIQUE and s.part == "clique" for s in reading.sources):
        kept = tuple(s for s in reading.sources if not (s.key == CLIQUE and s.part == "cluster"))
        return replace(reading, sources=kept)
    return reading


def _says_more(narrow: Reading, wide: Reading, nodes: Sequence[Node]) -> bool:
    """Whether some domain of `wide` has several of `narrow`."""
    parts: dict[str, str] = {}
    for node in nodes:
        domain, part = wide.value(node.labels), narrow.value(node.labels)
        if domain and parts.setdefault(domain, part) != part:
            return True
    return False


def _without_host(found: dict[Step, Reading], nodes: Sequence[Node]) -> dict[Step, Reading]:
    host = found.get(HOST)
    if host is None:
        return found
    values = [value for node in nodes if (value := host.value(node.labels))]
    return found if len(set(values)) < len(values) else {s: r for s, r in found.items() if s != HOST}


def find_level(levels: Sequence[Level], wanted: str) -> int | None:
    """Number of the level that a person means by its name, by one of its keys, or by the last part of a key."""
    for number, level in enumerate(levels):
        if wanted in (level.name, *level.keys):
            return number
    words = [n for n, level in enumerate(levels) if any(key.rpartition("/")[2] == wanted for key in level.keys)]
    return words[0] if len(words) == 1 else None


def without_nodes(nodes: Sequence[Node], keys: Iterable[str]) -> tuple[str, ...]:
    """What a person should know of keys that no node carries."""
    return tuple(f"no node has the label {key}" for key in keys if not any(node.labels.get(key) for node in nodes))
