"""The trained matrices inside a base, and in a file.

peft puts them into the base; here they get the names and shapes that every reader of LoRA files knows (kohya's),
and become a change of weights again.
"""

from __future__ import annotations

import math
import re
from collections import Counter
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Any

import torch
from peft import LoraConfig, inject_adapter_in_model
from peft.tuners.tuners_utils import BaseTunerLayer
from torch import Tensor, nn

from lorafactory.errors import InputError, SettingsError
from lorafactory.families import Base, Family
from lorafactory.networks import Layer, Settings, Size, get

ADAPTER = "lorafactory"


def layers(family: Family, base: Base, parts: Iterable[str]) -> list[Layer]:
    """Every linear and convolution layer inside the family's target blocks, in the base's own order."""
    found = []
    for part in parts:
        modules = dict(base.parts[part].named_modules())
        for path, module in modules.items():
            block = _block(path, modules, family.targets)
            if block is None or not isinstance(module, nn.Linear | nn.Conv2d):
                continue
            kernel = module.kernel_size[0] if isinstance(module, nn.Conv2d) else 1
            found.append(Layer(part, path, block, kernel))
    return found


def _block(path: str, modules: Mapping[str, nn.Module], targets: Mapping[str, tuple[str, ...]]) -> str | None:
    """Name the nearest enclosing target block of a module, if there is one."""
    while "." in path:
        path = path.rpartition(".")[0]
        kind = type(modules[path]).__name__
        for block, classes in targets.items():
            if kind in classes:
                return block
    return None


@dataclass
class Adapter:
    """The trained matrices inside a base, by kohya's name of their layer."""

    base: Base
    modules: dict[str, tuple[str, Any, Size]]
    """Name -> part, peft's layer, size."""

    @property
    def parts(self) -> list[str]:
        """The base's parts that it is in."""
        return list(dict.fromkeys(part for part, _, _ in self.modules.values()))

    def parameters(self, part: str) -> list[nn.Parameter]:
        found = []
        for owner, module, _ in self.modules.values():
            if owner == part:
                found += [module.lora_A[ADAPTER].weight, module.lora_B[ADAPTER].weight]
        return found

    def state(self) -> dict[str, Tensor]:
        """Copy what a LoRA file holds, in fp32: down (r, in[, k, k]), up (out, r[, 1, 1]), exact alpha."""
        tensors = {}
        for name, (_, module, size) in self.modules.items():
            tensors[f"{name}.lora_down.weight"] = module.lora_A[ADAPTER].weight.detach().cpu().clone()
            tensors[f"{name}.lora_up.weight"] = module.lora_B[ADAPTER].weight.detach().cpu().clone()
            tensors[f"{name}.alpha"] = torch.tensor(float(size.alpha))
        return tensors

    @torch.no_grad()
    def load(self, tensors: Mapping[str, Tensor]) -> None:
        """Take the values of another adapter of these layers and ranks, by kohya's names; the others stay."""
        for name, (_, module, _) in self.modules.items():
            for key, weight in (("down", module.lora_A[ADAPTER].weight), ("up", module.lora_B[ADAPTER].weight)):
                if (found := tensors.get(f"{name}.lora_{key}.weight")) is None:
                    continue
                if found.numel() != weight.numel():
                    raise InputError(f"{name}: made for a layer of another size than this base has.")
                weight.copy_(found.reshape(weight.shape))

    def detach(self) -> None:
        """Take the adapter out: the base is again what it was before `attach`."""
        for part in self.base.parts.values():
            for path, module in list(part.named_modules()):
                if isinstance(module, BaseTunerLayer):
                    parent, _, child = path.rpartition(".")
                    setattr(part.get_submodule(parent), child, module.get_base_layer())
            if hasattr(part, "peft_config"):
                del part.peft_config
            part.requires_grad_(requires_grad=False)


def attach(
    family: Family,
    base: Base,
    *,
    kind: str,
    settings: Settings,
    parts: Iterable[str],
    generator: Callable[[str], torch.Generator],
    tensors: Mapping[str, Tensor] | None = None,
) -> Adapter:
    """Put an adapter into the base: up is zero, down is drawn per layer from `generator(name)`.

    `tensors` are those of a LoRA to go on from: the parts it has get its layers, ranks and values, whatever the
    settings say, also parts that are not among `parts`.
    """
    network = get(kind)
    names = family.key_names(base)
    given = _sizes(base, tensors or {}, names)
    chosen = [(layer, network.size(layer, settings)) for layer in layers(family, base, parts)]
    modules: dict[str, tuple[str, Any, Size]] = {}
    for part in [part for part in base.parts if part in given or part in parts]:
        sizes = given.get(part) or {y.path: size for y, size in chosen if size is not None and y.part == part}
        if not sizes:
            raise SettingsError(f"Adapter kind {kind!r} finds nothing to change in the {part} of {base.name}.")
        _inject(base.parts[part], sizes)
        for path, size in sizes.items():
            name = names[f"{part}.{path}"]
            module = base.parts[part].get_submodule(path)
            _initialise(module, generator(name))
            modules[name] = (part, module, size)
    made = Adapter(base, modules)
    made.load(tensors or {})
    return made


def _sizes(base: Base, tensors: Mapping[str, Tensor], names: Mapping[str, str]) -> dict[str, dict[str, Size]]:
    """Read from a LoRA's tensors which layers it changes and how large each change is: part -> path -> size."""
    groups: dict[str, dict[str, Tensor]] = {}
    for key, tensor in tensors.items():
        layer, _, what = key.partition(".")
        groups.setdefault(layer, {})[what] = tensor
    strange = sorted(set(groups) - set(names.values()))
    if strange:
        raise InputError(
            f"{len(strange)} of the LoRA's {len(groups)} layers are not in {base.name} ({base.family}), such as "
            f"{strange[0]}: it was made for another kind of base."
        )
    found: dict[str, dict[str, Size]] = {}
    for place, name in names.items():
        if (group := groups.get(name)) is None:
            continue
        part, _, path = place.partition(".")
        down, _, alpha = matrices(name, group)
        found.setdefault(part, {})[path] = Size(int(down.shape[0]), alpha)
    return found


def matrices(name: str, group: Mapping[str, Tensor]) -> tuple[Tensor, Tensor, float]:
    """Down, up and alpha of one layer of a file, as they are; InputError if that is another adapter kind."""
    if set(group) - {"alpha"} != {"lora_down.weight", "lora_up.weight"}:
        raise InputError(f"{name}: an adapter kind this cannot read ({', '.join(sorted(group))}).")
    down = group["lora_down.weight"]
    return down, group["lora_up.weight"], float(group["alpha"]) if "alpha" in group else float(down.shape[0])


def sizes_told(tensors: Mapping[str, Tensor]) -> dict[str, Any]:
    """The settings that a LoRA's tensors tell of: kind, ranks and alphas, those of most of its layers."""
    found: dict[bool, list[tuple[int, float]]] = {False: [], True: []}
    for name, down in tensors.items():
        if name.endswith(".lora_down.weight"):
            rank = int(down.shape[0])
            scale = tensors.get(name.replace("lora_down.weight", "alpha"))
            found[down.ndim == 4 and down.shape[-1] > 1].append((rank, float(rank if scale is None else scale)))
    told: dict[str, Any] = {"network": "locon" if found[True] else "lora"}
    for prefix, own in (("", found[False]), ("conv_", found[True])):
        if own:
            most = Counter(own).most_common(1)[0][0]
            told |= {f"{prefix}rank": most[0], f"{prefix}alpha": most[1]}
    return told


def _inject(part: nn.Module, sizes: Mapping[str, Size]) -> None:
    first = next(iter(sizes.values()))
    # one expression per size: peft compiles one per layer anew for every layer, 100 s for a LoCon of SDXL
    others = {
        f"^({'|'.join(re.escape(path) for path, own in sizes.items() if own == size)})": size
        for size in dict.fromkeys(sizes.values())
        if size != first
    }
    config = LoraConfig(
        target_modules=list(sizes),
        r=first.rank,
        lora_alpha=first.alpha,  # annotated int; any number works and is kept
        rank_pattern={pattern: size.rank for pattern, size in others.items()},
        alpha_pattern={pattern: size.alpha for pattern, size in others.items()},
        lora_dropout=0.0,
        bias="none",
    )
    inject_adapter_in_model(config, part, adapter_name=ADAPTER)


def _initialise(module: Any, generator: torch.Generator) -> None:
    down, up = module.lora_A[ADAPTER].weight, module.lora_B[ADAPTER].weight
    down.data = down.data.float()
    up.data = torch.zeros_like(up, dtype=torch.float32)
    values = torch.empty(down.shape)
    # kohya's and peft's start: uniform within 1/sqrt(fan in)
    nn.init.kaiming_uniform_(values, a=math.sqrt(5), generator=generator)
    with torch.no_grad():
        down.copy_(values)


def delta(name: str, tensors: Mapping[str, Tensor], shape: torch.Size) -> Tensor:
    """Turn the tensors that a file has for one layer into the change of its weight (of `shape`), in fp32."""
    down, up, alpha = matrices(name, tensors)
    # a convolution's up has a 1x1 kernel, so the product over channels is the whole change
    change = up.float().flatten(1) @ down.float().flatten(1) * (alpha / down.shape[0])
    if change.numel() != shape.numel():
        raise InputError(f"{name}: made for a layer of another size than this base has ({tuple(shape)}).")
    return change.reshape(shape)
