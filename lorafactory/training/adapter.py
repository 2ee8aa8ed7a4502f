"""The trained matrices inside a base, and in a file.

peft puts them into the base; here they get the names and shapes that every reader of LoRA files knows (kohya's),
and become a change of weights again.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Any

import peft
import torch
from peft.tuners.tuners_utils import BaseTunerLayer
from torch import Tensor, nn

from lorafactory import networks
from lorafactory.errors import InputError, SettingsError
from lorafactory.families import Base, Family
from lorafactory.networks import Layer, Size
from lorafactory.training.settings import TrainSettings

ADAPTER = "lorafactory"
KOHYAS = {"lora_A": "lora_down.weight", "lora_B": "lora_up.weight", "lora_magnitude_vector": "dora_scale"}
"""Names in a file of what peft calls otherwise."""
_CONVOLUTION = re.compile(r"_(conv|conv1|conv2|in_layers_2|out_layers_3|op)$")
"""Kohya's names of layers with kernels larger than 1x1."""


def layers(family: Family, base: Base, parts: Iterable[str]) -> list[Layer]:
    """Every linear and convolution layer inside the family's target blocks, in the base's own order."""
    found = []
    for part in parts:
        modules = dict(base.parts[part].named_modules())
        for path, module in modules.items():
            block = _block(path, modules, family.targets)
            if block is not None and isinstance(module, nn.Linear | nn.Conv2d):
                found.append(Layer(part, path, block, _shape(module)))
    return found


def _shape(module: nn.Linear | nn.Conv2d) -> tuple[int, ...]:
    """Of the weight; fewer bits hold it in another."""
    if isinstance(module, nn.Linear):
        return module.out_features, module.in_features
    return tuple(module.weight.shape)


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
        owned = [module for owner, module, _ in self.modules.values() if owner == part]
        return [weight for module in owned for weight in held(module).values()]

    def groups(self, rates: Mapping[str, float], s: TrainSettings) -> list[tuple[float, list[nn.Parameter]]]:
        """What is trained at each learning rate: a part's own, times the factor of the block in the UNet."""
        found: dict[tuple[str, float], list[nn.Parameter]] = {(part, 1.0): [] for part in rates}
        for name, (part, module, _) in self.modules.items():
            factor = networks.block_rate(name, s, self.base.family) if part == "unet" else 1.0
            if part in rates and factor:
                found.setdefault((part, factor), []).extend(held(module).values())
        return [(rates[part] * factor, weights) for (part, factor), weights in found.items() if weights]

    def state(self) -> dict[str, Tensor]:
        """Copy what a LoRA file holds, in fp32: down (r, in[, k, k]), up (out, r[, 1, 1]), exact alpha, and so on."""
        tensors = {}
        for name, (_, module, size) in self.modules.items():
            for what, weight in held(module).items():
                value = weight.detach().cpu().clone()
                if what == "dora_scale":  # (out, 1[, 1, 1]): every reader takes a row for a row
                    value = value.reshape(-1, *[1] * (len(_shape(module.get_base_layer())) - 1))
                tensors[f"{name}.{what}"] = value
            tensors[f"{name}.alpha"] = torch.tensor(float(size.alpha))
        return tensors

    @torch.no_grad()
    def load(self, tensors: Mapping[str, Tensor]) -> None:
        """Take the values of another adapter of these layers and ranks, by kohya's names; the others stay."""
        for name, (_, module, _) in self.modules.items():
            for what, weight in held(module).items():
                if (found := tensors.get(f"{name}.{what}")) is None:
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


def held(module: Any) -> dict[str, nn.Parameter]:
    """The matrices of one of peft's layers, by their names in a file."""
    found = {}
    for name in dict.fromkeys(module.adapter_layer_names):
        own = getattr(module, name)
        if ADAPTER in own:
            found[KOHYAS.get(name, name)] = own[ADAPTER] if isinstance(own, nn.ParameterDict) else own[ADAPTER].weight
    return found


def attach(
    family: Family,
    base: Base,
    *,
    kind: str,
    settings: TrainSettings,
    parts: Iterable[str],
    generator: Callable[[str], torch.Generator],
    tensors: Mapping[str, Tensor] | None = None,
) -> Adapter:
    """Put an adapter into the base: it changes nothing yet, and is drawn per layer from `generator(name)`.

    `tensors` are those of a LoRA to go on from: the parts it has get its layers, ranks and values, whatever the
    settings say, also parts that are not among `parts`.
    """
    names = family.key_names(base)
    given = _sizes(base, tensors or {}, names, kind)
    chosen = [(layer, networks.size(kind, layer, settings, base.family)) for layer in layers(family, base, parts)]
    modules: dict[str, tuple[str, Any, Size]] = {}
    for part in [part for part in base.parts if part in given or part in parts]:
        sizes = given.get(part) or {y.path: size for y, size in chosen if size is not None and y.part == part}
        if not sizes:
            raise SettingsError(f"Adapter kind {kind!r} finds nothing to change in the {part} of {base.name}.")
        _inject(base.parts[part], sizes, kind, settings)
        for path, size in sizes.items():
            name = names[f"{part}.{path}"]
            module = base.parts[part].get_submodule(path)
            _initialise(module, kind, generator(name))
            modules[name] = (part, module, size)
    made = Adapter(base, modules)
    made.load(tensors or {})
    return made


def _sizes(
    base: Base, tensors: Mapping[str, Tensor], names: Mapping[str, str], kind: str
) -> dict[str, dict[str, Size]]:
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
        if set(group) - {"alpha"} - networks.get(kind).TENSORS:
            raise InputError(f"{name}: of another adapter kind ({', '.join(sorted(group))}) than {kind}.")
        try:
            found.setdefault(part, {})[path] = networks.get(kind).told(group)
        except KeyError as missing:
            raise InputError(f"{name}: has no {missing}.") from missing
    return found


def sizes_told(tensors: Mapping[str, Tensor]) -> dict[str, Any]:
    """The settings that a LoRA's tensors tell of: kind, ranks and alphas, those of most of its layers."""
    groups: dict[str, dict[str, Tensor]] = {}
    for key, tensor in tensors.items():
        layer, _, what = key.partition(".")
        groups.setdefault(layer, {})[what] = tensor
    kinds: Counter[str] = Counter()
    found: dict[bool, Counter[Size]] = {False: Counter(), True: Counter()}
    for name, group in groups.items():
        if (kind := networks.of(group)) is not None:
            kinds[kind] += 1
            found[bool(_CONVOLUTION.search(name))][networks.get(kind).told(group)] += 1
    kind = kinds.most_common(1)[0][0] if kinds else "lora"
    told: dict[str, Any] = {"network": "locon" if kind == "lora" and found[True] else kind}
    for prefix, own in (("", found[False]), ("conv_", found[True])):
        if own:
            most = own.most_common(1)[0][0]
            told |= {f"{prefix}rank": most.rank, f"{prefix}alpha": most.alpha}
    return told


def _inject(part: nn.Module, sizes: Mapping[str, Size], kind: str, s: TrainSettings) -> None:
    first = next(iter(sizes.values()))
    # one expression per size: peft compiles one per layer anew for every layer, 100 s for a LoCon of SDXL
    others = {
        f"^({'|'.join(re.escape(path) for path, own in sizes.items() if own == size)})": size
        for size in dict.fromkeys(sizes.values())
        if size != first
    }
    name, told = networks.get(kind).config(s)
    config = getattr(peft, name)(
        target_modules=list(sizes),
        r=first.rank,
        **{"lora_alpha" if name == "LoraConfig" else "alpha": first.alpha},  # annotated int; any number works
        rank_pattern={pattern: size.rank for pattern, size in others.items()},
        alpha_pattern={pattern: size.alpha for pattern, size in others.items()},
        **told,
    )
    peft.inject_adapter_in_model(config, part, adapter_name=ADAPTER)


@torch.no_grad()
def _initialise(module: Any, kind: str, generator: torch.Generator) -> None:
    for what, weight in held(module).items():
        weight.data = weight.data.float()
        if what == "dora_scale":
            continue  # peft has measured the weight
        values = torch.empty(weight.shape)
        networks.get(kind).start(what, values, generator)
        weight.copy_(values)


def delta(name: str, group: Mapping[str, Tensor], weight: Tensor) -> Tensor:
    """Turn the tensors that a file has for one layer into the change of its weight, in its shape, in fp32."""
    group = {what: tensor.to(weight.device) for what, tensor in group.items()}
    scale = group.pop("dora_scale", None)
    try:
        change = networks.get(networks.of(group) or "").change(group)
    except (KeyError, SettingsError) as error:
        raise InputError(f"{name}: an adapter kind this cannot read ({', '.join(sorted(group))}).") from error
    if change.numel() != weight.numel() or (scale is not None and scale.numel() != len(weight)):
        raise InputError(f"{name}: made for a layer of another size than this base has ({tuple(weight.shape)}).")
    change = change.reshape(weight.shape)
    return change if scale is None else _turned(weight.float(), change, scale.float())


def _turned(weight: Tensor, change: Tensor, scale: Tensor) -> Tensor:
    """DoRA's change: each output's row gets the direction of the changed one, and the length that `scale` says."""
    whole = (weight + change).flatten(1)
    length = torch.linalg.vector_norm(whole, dim=1, keepdim=True).clamp(min=torch.finfo(torch.float32).tiny)
    turned: Tensor = whole * (scale.reshape(-1, 1) / length)
    return turned.reshape(weight.shape) - weight
