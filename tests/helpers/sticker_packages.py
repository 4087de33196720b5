"""A tiny hand-made folder of npm packages, as the sticker art comes in."""

from __future__ import annotations

import json
from pathlib import Path

DISC = '<defs><linearGradient id="{id}"/></defs><circle cx="10" cy="9" r="6" fill="#f00"/>'
BAR = '<path fill="#00f" d="M4 14h24v4H4z"/>'
HAND = '<path fill="#fc0" d="M4 4h10v24H4z"/>'
EMOJI = {
    "\U0001f34e": ("red apple", "Food & Drink", 42),
    "\u2796": ("minus", "Symbols", 90),
    "\U0001f44b": ("waving hand", "People & Body", 16),
    "\U0001f1eb\U0001f1f7": ("flag: France", "Flags", 98),
    "\U0001f534": ("red circle", "Symbols", 96),
}


def write(path: Path, content: object) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(content), encoding="utf-8")


def write_packages(root: Path) -> Path:
    """node_modules with two icon sets: apple, minus, a hand with a skin tone, a flag, a twin."""
    modules = root / "node_modules"
    for name in ("noto", "twemoji"):
        folder = modules / "@iconify-json" / name
        icons = {
            "red-apple": {"body": DISC.format(id="a1")},
            "minus": {"body": BAR},
            "waving-hand": {"body": HAND},
            "waving-hand-dark-skin-tone": {"body": HAND.replace("fc0", "630")},
            "flag-france": {"body": BAR},
            # the apple's drawing but for the id of its gradient
            "red-circle": {"body": DISC.format(id="b2")},
            "old-apple": {"body": BAR, "hidden": True},
        }
        about = {"prefix": name, "width": 32, "height": 32}
        write(folder / "icons.json", {**about, "icons": icons})
        write(folder / "package.json", {"version": "9.9.9"})
    names = {}
    for emoji, (name, group, _) in EMOJI.items():
        slug = name.replace(": ", "_").replace(" ", "_").lower()
        names[emoji] = {"name": name, "slug": slug, "group": group}
    write(modules / "unicode-emoji-json" / "data-by-emoji.json", names)
    write(modules / "unicode-emoji-json" / "package.json", {"version": "1"})
    (modules / "unicode-emoji-json" / "LICENSE").write_text("MIT, of the names")
    base = []
    for emoji, (label, _, subgroup) in EMOJI.items():
        base.append({"emoji": emoji, "label": label, "subgroup": subgroup, "tags": ["t"]})
    write(modules / "emojibase-data" / "en" / "data.json", base)
    groups = {"16": "hand-fingers-open", "42": "food-fruit", "90": "math"}
    groups |= {"96": "geometric", "98": "country-flag"}
    write(modules / "emojibase-data" / "meta" / "groups.json", {"subgroups": groups})
    write(modules / "emojibase-data" / "package.json", {"version": "1"})
    return root
