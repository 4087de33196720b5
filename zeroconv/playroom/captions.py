"""Scenes in words: a few plain English templates over a small vocabulary."""

from __future__ import annotations

from zeroconv.playroom.world import ObjectSpec, SceneSpec


def phrase(thing: ObjectSpec) -> str:
    """ "a large red ball", "a small person in blue waving"."""
    if thing.kind == "person":
        return f"a {thing.size} person in {thing.colour} {thing.action}"
    return f"a {thing.size} {thing.colour} {thing.kind}"


def all_captions(spec: SceneSpec) -> list[str]:
    """Every way the templates say it."""
    names = [phrase(thing) for thing in spec.objects] or ["nothing"]
    things = names[0] if len(names) == 1 else ", ".join(names[:-1]) + " and " + names[-1]
    order = ", then ".join(names) if len(names) > 1 else names[0]
    floor = (
        f"a {spec.floor} floor"
        if spec.floor not in ("grass", "blue carpet", "red carpet")
        else f"a {spec.floor}"
    )
    floor = "grass" if spec.floor == "grass" else floor
    wall = f"a {spec.wall} wall"
    listed = f"from left to right, {order}, on {floor} in front of {wall}"
    if len(names) == 1:
        listed = f"{things} on {floor} with {wall}"
    solid = all(thing.kind != "person" for thing in spec.objects)
    return [
        f"{things} on {floor} in front of {wall}",
        f"{things} on {floor}, {wall} behind",
        f"a room with {wall} and {things} on {floor}",
        f"{wall}, {floor}, {things}",
        listed,
        f"a picture of {things} {'standing ' if solid else ''}on {floor} by {wall}",
    ]


def caption_of(spec: SceneSpec, variant: int | None = None) -> str:
    """One caption; without `variant` the seed chooses the template."""
    captions = all_captions(spec)
    return captions[(spec.seed if variant is None else variant) % len(captions)]
