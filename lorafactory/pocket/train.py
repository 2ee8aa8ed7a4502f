"""Train the pocket models again: `make pocket [STAGE=clip]`.

Stages run in the order of `STAGES`, each resumable (see `loop.py`). A finished stage writes its weights, in fp16,
into the package. `floors.py` measures them.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import logging
import random
from collections.abc import Callable
from pathlib import Path

import torch
import torch.nn.functional as F  # noqa: N812  (torch's own habit)
from rich.progress import Progress
from safetensors.torch import load_file, save_file

from lorafactory.pocket import MODELS, models, redrawn, things, world
from lorafactory.pocket.loop import SEED, STATE, Job, log, rng_for, train, write_weights
from lorafactory.pocket.pictures import covered, painting, pixels, worn


def train_vae(steps: int = 7500) -> None:
    """Learn latents from crops of scenes (and a few paintings): L1, L1 of the gradients, a touch of KL."""
    vae = models.build_vae()

    def loss(rng: random.Random, step: int) -> torch.Tensor:
        whole = step > steps * 0.85
        count, side = (6, world.SIDE) if whole else (12, 64)
        crops = []
        for _ in range(count):
            picture = painting(rng) if rng.random() < 0.08 else world.draw(world.random_scene(rng), rng)
            x, y = rng.randint(0, world.SIDE - side), rng.randint(0, world.SIDE - side)
            crops.append(picture.crop((x, y, x + side, y + side)))
        image = pixels(crops)
        with torch.autocast("cpu", torch.bfloat16, enabled=not whole):
            latent = vae.encode(image).latent_dist
            out = vae.decode(latent.sample()).sample
        error = out.float() - image
        edges = (error[..., 1:, :] - error[..., :-1, :]).abs().mean() + (error[..., 1:] - error[..., :-1]).abs().mean()
        kl = 0.5 * (latent.mean**2 + latent.var - 1 - latent.logvar).float().mean()
        value: torch.Tensor = error.abs().mean() + 0.5 * edges + 2e-4 * kl
        return value

    train(Job("vae", {"vae": vae}, steps, 2e-3, loss, ema=0.995))
    rng = rng_for("vae scale", 0)
    with torch.no_grad():
        stack = pixels(world.draw(world.random_scene(rng), rng) for _ in range(200))
        latents = torch.cat([vae.encode(b).latent_dist.mean for b in torch.split(stack, 20)])
        error = torch.cat([vae.decode(z).sample for z in torch.split(latents, 20)]) - stack
    vae.register_to_config(scaling_factor=round(1 / latents.std().item(), 4))
    log.info("vae: %.2f dB on 200 fresh scenes", -10 * torch.log10((error / 2).square().mean()).item())
    folder = MODELS / "base" / "vae"
    vae.save_config(folder)
    write_weights(vae, folder / "diffusion_pytorch_model.safetensors")


def train_encode(count: int = 24000) -> None:
    """Draw the UNet's scenes and keep mean and deviation of their latents."""
    from diffusers import AutoencoderKL

    path = STATE / "latents.safetensors"
    if path.exists():
        return
    vae = AutoencoderKL.from_pretrained(MODELS / "base" / "vae", dtype=torch.float32).eval()
    out = []
    with torch.no_grad(), Progress() as bar:
        for start in bar.track(range(0, count, 50), description="encode"):
            stack = pixels(world.draw(*scene_of(i)) for i in range(start, start + 50))
            latent = vae.encode(stack).latent_dist
            out.append(torch.cat([latent.mean, latent.std], 1).half())
    save_file({"latents": torch.cat(out)}, f"{path}.part")
    Path(f"{path}.part").replace(path)


def scene_of(index: int) -> tuple[world.Scene, random.Random]:
    """Scene `index` of the UNet's training set, the generator ready to draw it."""
    rng = random.Random(f"{SEED} scene {index}")
    return world.random_scene(rng), rng


def said(scene: world.Scene, rng: random.Random) -> str:
    """A prompt for the scene: 8 % nothing, 3 % a meaningless word, 12 % such a word in front."""
    draw = rng.random()
    if draw < 0.08:
        return ""
    if draw < 0.11:
        return world.junk_word(rng)
    words = world.loose_caption(scene, rng)
    return f"{world.junk_word(rng)}, {words}" if draw < 0.23 else words


def train_unet(steps: int = 6000, batch: int = 32) -> None:
    """Learn UNet and text encoder together from noise, in v-prediction (arXiv:2202.00512)."""
    from diffusers import DDIMScheduler
    from transformers import CLIPTokenizer

    folder = MODELS / "base"
    vocabulary = models.write_clip_tokenizer(folder / "tokenizer")
    tokenizer = CLIPTokenizer.from_pretrained(folder / "tokenizer")
    unet, text = models.build_unet(), models.build_text_encoder(vocabulary)
    scheduler = DDIMScheduler(**models.SCHEDULER)
    scheduler.save_pretrained(folder / "scheduler")
    latents = load_file(STATE / "latents.safetensors")["latents"]
    scale = json.loads((folder / "vae" / "config.json").read_text())["scaling_factor"]
    scenes = [scene_of(i)[0] for i in range(len(latents))]

    def loss(rng: random.Random, step: int) -> torch.Tensor:
        chosen = [rng.randrange(len(scenes)) for _ in range(batch)]
        mean, deviation = latents[chosen].float().chunk(2, 1)
        clean = (mean + deviation * torch.randn_like(mean)) * scale
        noise = torch.randn_like(clean)
        times = ((torch.arange(batch) + torch.rand(batch)) * (1000 / batch)).long().clamp(0, 999)
        prompts = [said(scenes[i], rng) for i in chosen]
        tokens = tokenizer(prompts, padding="longest", truncation=True, return_tensors="pt")
        full = F.pad(tokens.input_ids, (0, 77 - tokens.input_ids.shape[1]), value=vocabulary - 1)
        states = text(full).last_hidden_state
        out = unet(scheduler.add_noise(clean, noise, times), times, encoder_hidden_states=states).sample
        return F.mse_loss(out, scheduler.get_velocity(clean, noise, times))

    train(Job("unet", {"unet": unet, "text": text}, steps, 1e-3, loss, ema=0.998, betas=(0.9, 0.99)))
    unet.save_config(folder / "unet")
    write_weights(unet, folder / "unet" / "diffusion_pytorch_model.safetensors")
    text.config.save_pretrained(folder / "text_encoder")
    write_weights(text, folder / "text_encoder" / "model.safetensors")
    write_model_index(folder)


def write_model_index(folder: Path) -> None:
    index = {
        "_class_name": "StableDiffusionPipeline",
        "_diffusers_version": "0.42.1",
        "feature_extractor": [None, None],
        "image_encoder": [None, None],
        "requires_safety_checker": False,
        "safety_checker": [None, None],
        "scheduler": ["diffusers", "DDIMScheduler"],
        "text_encoder": ["transformers", "CLIPTextModel"],
        "tokenizer": ["transformers", "CLIPTokenizer"],
        "unet": ["diffusers", "UNet2DConditionModel"],
        "vae": ["diffusers", "AutoencoderKL"],
    }
    models.write_json(folder / "model_index.json", index)


TEMPERATURE = 0.1
"""Of the DINOv2 stage: the less, the more the likest others count."""
WOBBLE = 0.04
"""Up to which share of its radius a thing may be out of shape and is still the same to DINOv2."""
COVERED_FROM = 1800
"""Step of BLIP's training from which pictures are partly covered."""
ATTRIBUTES: dict[str, Callable[[world.Scene], int]] = {
    "shape": lambda s: world.SHAPES.index(s.shape),
    "colour": lambda s: world.NAMES.index(s.colour),
    "size": lambda s: world.SIZES.index(s.size),
    "top": lambda s: world.NAMES.index(s.background[0]),
    "bottom": lambda s: world.NAMES.index(s.background[-1]),
    "plain": lambda s: len(s.background) - 1,
    "hat": lambda s: int(s.extra == world.HAT),
    "holding": lambda s: int(s.extra == world.HOLDING),
    "beside": lambda s: world.NAMES.index(s.extra.split()[2]) if s.extra.startswith("and") else 10,
    "text": lambda s: int(s.text),
}
"""What the CLIP stage also asks of the picture by name, so that its tower sees shapes from the start."""


def family(rng: random.Random, size: int = 4) -> list[world.Scene]:
    """A scene and some that differ from it in one attribute, often its shape: hard negatives for each other."""
    scene = world.random_scene(rng)
    others = world.neighbours(scene)
    if rng.random() < 0.5:
        others = [other for other in others if other.shape != scene.shape]
    return [scene, *rng.sample(others, size - 1)]


def train_clip(steps: int = 4000, families: int = 24) -> None:
    """Contrast pictures with captions (arXiv:2103.00020) in batches made of one-attribute neighbours."""
    folder = MODELS / "clip"
    vocabulary = models.write_clip_tokenizer(folder)
    tokenizer = clip_tokenizer(folder)
    model = models.build_clip(vocabulary)
    heads = torch.nn.ModuleDict({k: torch.nn.Linear(128, 11) for k in ATTRIBUTES})

    def loss(rng: random.Random, step: int) -> torch.Tensor:
        scenes = [s for _ in range(families) for s in family(rng)]
        images = torch.stack([worn(world.draw(s, rng), rng) for s in scenes])
        texts = tokenizer([s.caption() if rng.random() < 0.6 else world.loose_caption(s, rng) for s in scenes])
        with torch.autocast("cpu", torch.bfloat16):
            seen, read = model.encode_image(images), model.encode_text(texts)
            named = sum(
                (1.0 if k == "shape" else 0.05)  # shapes come last, and without this not at all
                * F.cross_entropy(heads[k](seen).float(), torch.tensor([f(s) for s in scenes]))
                for k, f in ATTRIBUTES.items()
            )
        scale = model.logit_scale.exp().clamp(max=100)
        logits = scale * F.normalize(seen.float(), dim=-1) @ F.normalize(read.float(), dim=-1).T
        target = torch.arange(len(scenes))
        return (F.cross_entropy(logits, target) + F.cross_entropy(logits.T, target)) / 2 + named

    train(Job("clip", {"clip": model, "heads": heads}, steps, 1e-3, loss, hold=0.6, ema=0.995))
    normal = {"mean": [0.5] * 3, "std": [0.5] * 3, "interpolation": "bicubic", "resize_mode": "shortest"}
    config = {"model_cfg": models.clip_config(vocabulary), "preprocess_cfg": normal}
    models.write_json(folder / "open_clip_config.json", config)
    write_weights(model, folder / "open_clip_model.safetensors")


def clip_tokenizer(folder: Path) -> Callable[[list[str]], torch.Tensor]:
    """Tokenize as `open_clip.get_tokenizer("local-dir:...")` does, without its model files being there yet."""
    from open_clip.tokenizer import HFTokenizer

    tokenizer: Callable[[list[str]], torch.Tensor] = HFTokenizer(str(folder), context_length=models.CLIP_CONTEXT)
    return tokenizer


def trained_clip() -> torch.nn.Module:
    clip: torch.nn.Module = models.build_clip(len(json.loads((MODELS / "clip" / "vocab.json").read_text("utf-8"))))
    clip.load_state_dict({k: v.float() for k, v in load_file(MODELS / "clip" / "open_clip_model.safetensors").items()})
    return clip


def train_blip(steps: int = 2300, batch: int = 64) -> None:
    """Learn to caption from the full captions, the vision tower started from CLIP's (arXiv:2201.12086)."""
    from transformers import BertTokenizer

    folder = MODELS / "blip"
    vocabulary = models.write_blip_tokenizer(folder)
    tokenizer = BertTokenizer.from_pretrained(folder)
    model = models.build_blip(vocabulary)
    models.blip_from_clip(model, trained_clip())

    def loss(rng: random.Random, step: int) -> torch.Tensor:
        scenes = [world.random_scene(rng, plain=rng.random() < 0.3) for _ in range(batch)]
        drawn = [world.draw(s, rng) for s in scenes]
        drawn = [covered(d, rng) if step >= COVERED_FROM and rng.random() < 0.5 else d for d in drawn]
        images = torch.stack([worn(d, rng) for d in drawn])
        tokens = tokenizer([f"{models.PROMPT} {s.caption()}" for s in scenes], padding=True, return_tensors="pt")
        tokens.input_ids[:, 0] = 5
        labels = tokens.input_ids.masked_fill(tokens.attention_mask == 0, -100)
        labels[:, :4] = -100
        with torch.autocast("cpu", torch.bfloat16):
            out = model(
                pixel_values=images,
                input_ids=tokens.input_ids,
                attention_mask=tokens.attention_mask,
                labels=labels,
            )
        value: torch.Tensor = out.loss.float()
        return value

    train(Job("blip", {"blip": model}, steps, 8e-4, loss, ema=0.995))
    model.config.save_pretrained(folder)
    model.generation_config.save_pretrained(folder)
    write_weights(model, folder / "model.safetensors")


def train_dino(steps: int = 3000, more: int = 1000, families: int = 20, alike: int = 4) -> None:
    """Know a thing again among others that are nearly the same: contrast two pictures of each (arXiv:2002.05709).

    Then also as the base draws it and as an unsteady hand does, among what the base makes of things that it half
    forgot. DINOv2 itself learns from crops of photographs without labels (arXiv:2304.07193); here the pairs are drawn.
    """
    folder = MODELS / "dino"
    model = models.build_dino()
    models.dino_from_clip(model, trained_clip())

    def looked(images: list[torch.Tensor]) -> torch.Tensor:
        with torch.autocast("cpu", torch.bfloat16):
            found = model(pixel_values=models.normal(torch.stack(images))).last_hidden_state[:, 0]
        return F.normalize(found.float(), dim=-1)

    def pairs(rng: random.Random, first: list[things.Thing], wobble: float = 0.0) -> list[torch.Tensor]:
        asked = [thing for one in first for thing in (one, *(things.altered(one, rng) for _ in range(alike - 1)))]
        hands = ((thing, rng.uniform(0, wobble) if wobble else 0.0) for thing in asked for _ in range(2))
        return [worn(things.draw(thing, rng, unsteady), rng) for thing, unsteady in hands]

    def drawn(rng: random.Random, step: int) -> torch.Tensor:
        rows = looked(pairs(rng, [things.random_thing(rng) for _ in range(families)]))
        return told_apart(rows, len(rows))

    def redrawn_too(rng: random.Random, step: int) -> torch.Tensor:
        chosen = rng.sample(range(len(pool)), families)
        images = pairs(rng, [redrawn.thing_of(i)[0] for i in chosen], WOBBLE)
        for at, i in enumerate(chosen):
            if rng.random() < 0.6:
                images[2 * alike * at + 1] = redrawn.seen(pool.back[i], rng)
        rows = looked([*images, *(redrawn.seen(pool.forgotten[i], rng) for i in chosen)])
        return told_apart(rows, len(images))

    train(Job("dino", {"dino": model}, steps, 8e-4, drawn, hold=0.4, ema=0.995))
    pool = redrawn.Redrawn.load()
    train(Job("dino-redrawn", {"dino": model}, more, 4e-4, redrawn_too, hold=0.3, ema=0.995))
    model.config.save_pretrained(folder)
    write_weights(model, folder / "model.safetensors")


def told_apart(rows: torch.Tensor, paired: int) -> torch.Tensor:
    """Of the first `paired` rows each has its other picture beside it; all the rest are what it is not."""
    logits = (rows[:paired] @ rows.T / TEMPERATURE).diagonal_scatter(torch.full((paired,), -torch.inf))
    return F.cross_entropy(logits, torch.arange(paired) ^ 1)


STAGES: dict[str, Callable[[], None]] = {
    "vae": train_vae,
    "encode": train_encode,
    "unet": train_unet,
    "clip": train_clip,
    "blip": train_blip,
    "redrawn": redrawn.train_redrawn,
    "dino": train_dino,
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("stages", nargs="*", metavar="STAGE", help="one or more of: " + " ".join(STAGES))
    chosen = parser.parse_args().stages or list(STAGES)
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(message)s")
    with contextlib.suppress(KeyboardInterrupt):
        for stage in chosen:
            STAGES[stage]()


if __name__ == "__main__":
    main()
