"""Loaded bases and controls, kept by a budget of memory: the least recently used goes first.

Only the worker's thread calls this.
"""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from zeroconv.machine import all_memory
from zeroconv.serving.catalogue import Catalogue
from zeroconv.serving.generation import Loras
from zeroconv.serving.settings import ServerSettings


@dataclass
class Loaded:
    model: Any
    size: int  # bytes
    base: tuple | None = None  # of a control: the key of the base that it was loaded for


class Models:
    """Bases with LoRAs merged in, and controls for them."""

    def __init__(self, settings: ServerSettings, catalogue: Catalogue) -> None:
        self.settings, self.catalogue = settings, catalogue
        self.budget = settings.memory or all_memory() // 2
        self._loaded: OrderedDict[tuple, Loaded] = OrderedDict()
        self._lock = threading.Lock()  # for those who only look

    def base(self, name: str, loras: Loras = ()) -> Any:
        """Raises UserError."""
        return self._get(self._base_key(name, loras), lambda: self._load_base(name, loras))

    def control(self, name: str, base: str, loras: Loras = ()) -> Any:
        """A control for a loaded base. Raises UserError."""
        from zeroconv.baselines import load_net

        backbone, below = self.base(base, loras), self._base_key(base, loras)

        def load() -> Any:
            net = load_net(self.catalogue.control(name).path, backbone)
            return net.to(backbone.device)

        return self._get(("control", name, *below), load, below)

    def held(self) -> int:
        """Bytes of all loaded models."""
        with self._lock:
            return sum(loaded.size for loaded in self._loaded.values())

    def forget(self, control: str) -> None:
        """Load it anew when it is asked for next, as its files have changed."""
        with self._lock:
            for key in [key for key in self._loaded if key[:2] == ("control", control)]:
                del self._loaded[key]

    def _base_key(self, name: str, loras: Loras) -> tuple:
        return ("base", name, loras)

    def _load_base(self, name: str, loras: Loras) -> Any:
        from zeroconv.backbones import load_backbone
        from zeroconv.backbones.devices import pick_device, pick_dtype

        device = pick_device(self.settings.device)
        asked: Sequence[Any] = [
            (self.catalogue.lora(one).path, {"unet": unet, "text": text})
            for one, unet, text in loras
        ]
        entry = self.catalogue.base(name)
        files = {**entry.files, "lora": [*entry.files.get("lora", ()), *asked]}
        numbers = pick_dtype(self.settings.dtype, device)
        return load_backbone(entry.path, device=device, dtype=numbers, **files)

    def _get(self, key: tuple, load: Any, base: tuple | None = None) -> Any:
        with self._lock:
            if key in self._loaded:
                self._loaded.move_to_end(key)
                return self._loaded[key].model
        model = load()
        loaded = Loaded(model, bytes_of(model), base)
        with self._lock:
            self._loaded[key] = loaded
            if base is not None and base in self._loaded:
                self._loaded.move_to_end(base)
            self._make_room({key, base})
        return model

    def _make_room(self, kept: set) -> None:
        """Drop the least recently used until the rest fits; a base goes with its controls."""
        while sum(loaded.size for loaded in self._loaded.values()) > self.budget:
            gone = next((key for key in self._loaded if key not in kept), None)
            if gone is None:  # what is needed now is kept, also beyond the budget
                return
            controls = [key for key, loaded in self._loaded.items() if loaded.base == gone]
            for key in (gone, *(key for key in controls if key not in kept)):
                self._loaded.pop(key, None)


def bytes_of(model: Any) -> int:
    """Bytes of a model's own parameters and buffers, each counted once."""
    import torch

    networks: list[Any] = []
    if isinstance(model, torch.nn.Module):
        networks.append(model)
    elif hasattr(model, "networks"):
        networks += model.networks()
    parts: Mapping[str, Any] = getattr(model, "__dict__", {})
    networks += [part for part in parts.values() if isinstance(part, torch.nn.Module)]
    for part in parts.values():
        if isinstance(part, list | tuple):
            networks += [one for one in part if isinstance(one, torch.nn.Module)]
    tensors = {}
    for network in networks:
        for tensor in (*network.parameters(), *network.buffers()):
            tensors[tensor.data_ptr()] = tensor.numel() * tensor.element_size()
    return sum(tensors.values())
