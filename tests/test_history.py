"""Every question about one history (tests/history.py), and all of each answer."""

from __future__ import annotations

import asyncio
import inspect
import json
import shutil
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

from lorafactory import images, manifest, questions
from lorafactory.questions import QUESTIONS
from lorafactory.recording import environment
from lorafactory.store import Store
from lorafactory.training.lora_header import tensor_hash
from lorafactory.workspace import schedule
from tests.history import BASE, folder, hashes, said, save, told

pytestmark = pytest.mark.xdist_group("history")

# ---------------------------------------------------------------- a picture

IMPORTED = "  WHEN  rename    converted  96 x 96 -> 96 x 96, at most 2048 px, on white"
TRAINED = [f"  trained on it: {lora}, WHEN, done" for lora in ("anna", "dora", "cleo", "cleo")]
KEPT = "  WHEN  filter    kept  too small, 96 against 64; blur, 1 against 0.3; "
ANNA_1 = [
    "  in the set",
    "  WHEN  rename    imported  as 0001.png, 0.png",
    IMPORTED,
    "  WHEN  rename    same.bmp: set aside  same pixels, rival 0001.png",
    "  WHEN  dedupe    kept  bytes, 1 against 0; pixels, 1 against 0; phash, 16 against 10, rival 0002.png; "
    "mirrored, 36 against 10, rival 0002.png",
    f"{KEPT}dark, 0.9765 against 0.28; light, 0.3569 against 0.95; low information, 0.8706 against 0.15; "
    "odd ratio, 1 against 0.35; grey, 0.8824 against 0.05",
    '  WHEN  caption   captioned  text, "zqx, a star"',
    "  WHEN  repeats   repeated  2, 2, 1_zqx -> 2_zqx",
    *TRAINED,
]


def under(first: str, double: str) -> list[str]:
    """What is told of anna's first picture where another name is asked about."""
    lines = ["  in the set as 0001.png", *(line.replace("same.bmp: ", double) for line in ANNA_1[1:])]
    for verdict in ("imported", "converted", "kept", "captioned", "repeated"):
        lines = [line.replace(f"  {verdict}  ", f"  {first}{verdict}  ") for line in lines]
    return lines


def test_a_picture_that_was_kept_at_each_rule_and_the_loras_that_saw_it(history: Path) -> None:
    head = ["anna/0001.png", "  made from same.bmp", "  the same bytes as 0.png"]
    assert said(history, "anna/0001.png") == [*head, *ANNA_1]
    assert said(history, folder(history, "anna") / "0001.txt") == said(history, "anna/0001.png"), "by its caption"


def test_a_picture_whose_caption_a_person_wrote(history: Path) -> None:
    assert said(history, "anna/0002.png") == [
        "anna/0002.png",
        "  the same bytes as 1.png",
        "  in the set",
        "  WHEN  rename    imported  as 0002.png, 1.png",
        IMPORTED,
        "  WHEN  dedupe    kept  bytes, 1 against 0; pixels, 1 against 0; phash, 16 against 10, rival 0001.png; "
        "mirrored, 32 against 10, rival 0003.png",
        f"{KEPT}dark, 0.9804 against 0.28; light, 0.4706 against 0.95; low information, 0.8275 against 0.15; "
        "odd ratio, 1 against 0.35; grey, 0.8078 against 0.05",
        '  WHEN  caption   captioned  text, "zqx, a star"',
        '  WHEN  by hand   caption changed  "zqx, a red star"',
        "  WHEN  repeats   repeated  2, 2, 1_zqx -> 2_zqx",
        *TRAINED,
    ]


def test_a_picture_is_known_by_its_content(history: Path, tmp_path: Path) -> None:
    picture = images.load(history / "loras" / "anna" / "source" / "0.png")
    renamed, again, near = (tmp_path / name for name in ("renamed.png", "saved again.webp", "near.jpg"))
    shutil.copy(history / "loras" / "anna" / "source" / "0.png", renamed)
    picture.save(again, lossless=True, exact=True)
    picture.save(near, quality=90)
    head = ["  made from same.bmp", "  the same bytes as 0.png, 0001.png"]
    assert said(history, renamed) == [str(renamed), *head, *under("anna/0001.png: ", "anna/same.bmp: ")]
    assert said(history, again) == [str(again), *head, *under("anna/0001.png: ", "anna/same.bmp: ")]
    assert said(history, near) == [
        str(near),
        "  no LoRA was trained on it",
        "  perhaps the same: anna/0.png, 0 of 64 bits apart, in anna, cleo, dora",
    ]


def test_a_reject_and_a_double(history: Path) -> None:
    assert said(history, "anna/small.png") == [
        "anna/small.png",
        "  not in the set: set aside by rename, too small, 32 against 64, 32 x 32 pixels",
        "  WHEN  rename    set aside  too small, 32 against 64, 32 x 32 pixels",
        "  no LoRA was trained on it",
    ]
    assert said(history, "anna/same.bmp") == ["anna/same.bmp", *under("0001.png: ", "")]


def test_a_picture_that_a_lora_drew(history: Path) -> None:
    """What the model draws is not the same to the last bit on every processor, so no scores."""
    found = said(history, "dora/0001.png")
    assert [line for line in found if " kept  " not in line] == [
        "dora/0001.png",
        "  made from anna-000002.safetensors, anna.safetensors",
        "  the same bytes as generated-ID.png",
        "  in the set",
        "  written by generate of dora, WHEN",
        "  WHEN  generate  generated-ID.png: generated  seed N: zqx, a star",
        "  WHEN  rename    imported  as 0001.png, synthetic: zqx, a star",
        IMPORTED,
        '  WHEN  caption   captioned  text, "zqx, a star"',
        "  WHEN  repeats   repeated  2, 2, 1_zqx -> 2_zqx",
        *TRAINED[1:],
    ]
    assert [line.split()[:3] for line in found if " kept  " in line] == [
        ["WHEN", "dedupe", "kept"],
        ["WHEN", "filter", "kept"],
    ]


# ---------------------------------------------------------------- a LoRA

MADE = [
    "trained: anna, WHEN, done, HOURS",
    "  base          ABOVE/models/pocket-base, BASE-SHA",
    "  on            MACHINE, SYSTEM, PYTHON",
    "  with          PACKAGES",
    "  settings      bucket_step=32, conv_alpha=16.0, conv_rank=16, ema=True, ema_decay=0.5, epochs=3, lr=0.002, "
    "max_bucket=192, min_bucket=64, network=locon, optimizer=adamw, rank=16, resolution=96, save_dtype=fp32, "
    "scheduler=constant",
    "  pictures      3",
    '    0001.png       x2  "zqx, a star" (text)',
    '    0002.png       x2  "zqx, a red star" (by hand)',
    '    0003.png       x2  "zqx, a star" (text)',
]
OUT = [
    "not in the set: 2",
    "  same.bmp        set aside  by rename  same pixels, rival 0001.png",
    "  small.png       set aside  by rename  too small, 32 against 64, 32 x 32 pixels",
]
BY_HAND = "1 caption changed, 1 changed"
AGREED = "a person's choice of a save is the verdict's too in 1 of 1 LoRAs"
CHOSEN = (
    "epoch 2, chosen by hand. The verdict: epoch 2: the best likeness of the saves that pass, 0.702. "
    "Runner-up: epoch 3, likeness 0.692. "
    "By the last save likeness had fallen again, by 0.010 ± 0.000: fewer epochs may do"
)


def test_a_lora_and_everything_that_went_into_it(history: Path) -> None:
    assert said(history, "anna") == [
        "anna",
        "  WHEN  pick      done TIME",
        "  WHEN  train     done TIME",
        "  WHEN  repeats   done TIME  3 repeated",
        f"  WHEN  by hand   done TIME  {BY_HAND}",
        "  WHEN  caption   done TIME  3 captioned",
        "  WHEN  filter    done TIME  3 kept",
        "  WHEN  dedupe    done TIME  3 kept",
        "  WHEN  rename    done TIME  3 imported, 3 converted, 2 set aside",
        f"save: {CHOSEN}",
        AGREED,
        *OUT,
        *MADE,
    ]


def test_a_lora_that_goes_on_from_another(history: Path) -> None:
    lines = said(history, "cleo")
    assert lines[lines.index("trained: cleo, WHEN, done, HOURS") + 2] == (
        "  goes on from  cleo/cleo-000003.safetensors, loras/cleo/result_current/cleo-000003.safetensors"
    )
    begins = told(history, save(history, "cleo", 3))["made"]
    assert (begins["begins"], begins["manifest"]["from"]) == (
        "dora/dora-000003.safetensors",
        {"sha256": images.sha256(save(history, "dora", 3)), "epoch": 0, "step": 0, "more": 0},
    )


def test_the_manifest_of_a_training_whole(history: Path) -> None:
    made, sha = told(history, "anna")["made"], hashes(history, "anna")
    plain = {"repeats": 2, "reg": False, "mask_sha256": "", "crop": None}
    mask = images.sha256(history / "loras" / "anna" / "masks" / "0003.png")
    found = {key: value for key, value in made["manifest"].items() if key not in ("settings", "device", "precision")}
    assert found == {
        "version": 1,
        "lora": "anna",
        "base": {
            "asked": (history.parent / "models" / "pocket-base").as_posix(),
            "sha256": BASE,
            "family": "sd15",
            "vae_sha256": "",
            "prediction": "",
            "schedule": schedule(history.parent / "models" / "pocket-base"),
        },
        "from": {"sha256": "", "epoch": 0, "step": 0, "more": 0},
        "pictures": [
            {"name": "0001.png", "sha256": sha["0001.png"], "caption": "zqx, a star", **plain},
            {"name": "0002.png", "sha256": sha["0002.png"], "caption": "zqx, a red star", **plain},
            {"name": "0003.png", "sha256": sha["0003.png"], "caption": "zqx, a star", **plain, "mask_sha256": mask}
            | {"crop": [8, 4, 72, 68]},
        ],
        "trigger": "zqx",
        "kind": "object",
        "class": "",
        "threads": 1,
        "environment": json.loads(environment()),
    }
    assert (made["status"], made["retries"], made["revoked"], made["begins"]) == ("done", 0, False, "")


def test_a_file_with_the_record_and_alone(history: Path, tmp_path: Path) -> None:
    chosen = history / "loras" / "anna" / "anna.safetensors"
    carried = [
        "  name               anna",
        "  title              anna epoch 2",
        "  trigger            zqx",
        "  base               pocket-base",
        "  base sha256        BASE-SHA",
        "  family             sd_v1",
        "  rank               16",
        "  alpha              16.0",
        "  epoch              2",
        "  steps              6",
        "  pictures an epoch  6",
        "  learning rate      0.002",
        "  optimizer          torch.optim.AdamW(fused=True)",
        "  resolution         (96, 96)",
        "  date               WHEN",
        "  written by         lorafactory 0.1.0",
        "  verdict            passed",
        f"  reason             {CHOSEN}",
        "  chosen             by hand",
    ]
    head = [
        "  sha256             loras/anna/anna.safetensors",
        "  tensor hash        HASH",
        "  made of            HASH",
        *carried,
    ]
    assert said(history, chosen) == ["anna.safetensors", *head, "  provenance         whole", *MADE, *OUT]
    found = shutil.copy(chosen, tmp_path / "found.safetensors")
    with_record, alone = told(history, chosen), told(tmp_path / "nowhere", found)
    assert alone == {**with_record, "file": "found.safetensors", "provenance": "", "made": None}
    assert with_record["tensors"] == tensor_hash(save(history, "anna", 2))
    assert with_record["carries"]["made of"] == manifest.digest(manifest.definition(with_record["made"]["manifest"]))
    assert not (tmp_path / "nowhere").exists()


def test_what_a_run_wrote_beside_a_lora(history: Path) -> None:
    preview = history / "loras" / "anna" / "anna.png"
    assert said(history, preview) == ["anna/anna.png", "  written by pick of anna, WHEN"]


# ---------------------------------------------------------------- two things, and nothing


@pytest.mark.parametrize(
    ("one", "other", "what", "here", "there"),
    [
        ("anna", "dora", "0001.png: sha256", ("anna", "0001.png"), ("dora", "0001.png")),
        (
            "loras/cleo/result_current/cleo-000003.safetensors",
            "loras/cleo/result_current/cleo-000004.safetensors",
            "from: sha256",
            ("dora", 3),
            ("cleo", 3),
        ),
        (
            "loras/anna/result_current/anna-000001.safetensors",
            "loras/anna/result_current/anna-000003.safetensors",
            "steps trained",
            "3",
            "9",
        ),
        ("anna", "anna", "", "", ""),
        ("anna/0001.png", "anna/same.bmp", "bytes, and not a pixel", ("anna", "0001.png"), ("anna", "same.bmp")),
    ],
)
def test_the_first_difference(history: Path, one: str, other: str, what: str, here: Any, there: Any) -> None:
    def content(of: Any) -> str:
        if not isinstance(of, tuple):
            return str(of)
        lora, which = of
        places = [save(history, lora, which)] if isinstance(which, int) else [
            folder(history, lora) / which, history / "loras" / lora / "source" / which]  # fmt: skip
        return next(images.sha256(path) for path in places if path.is_file())

    things = [str(history / thing) if thing.startswith("loras/") else thing for thing in (one, other)]
    expected = {"one": things[0], "other": things[1], "what": what, "here": content(here), "there": content(there)}
    assert told(history, *things) == expected


def test_nothing_asked_tells_the_recent_runs_and_the_hours(history: Path) -> None:
    steps = {
        "cleo": ["train", "train", "repeats", "caption", "filter", "dedupe", "rename"],
        "dora": ["train", "repeats", "caption", "filter", "dedupe", "rename", "generate"],
        "anna": ["pick", "train", "repeats", "by hand", "caption", "filter"],
    }
    counts = {
        "repeats": "repeated",
        "caption": "captioned",
        "filter": "kept",
        "dedupe": "kept",
        "generate": "generated",
    }
    lines = ["latest runs"]
    for lora, names in steps.items():
        number = 3 if lora == "anna" else 2
        for step in names:
            tale = f"  {number} {counts[step]}" if step in counts else ""
            tale = {"rename": f"  {number} imported, {number} converted", "by hand": f"  {BY_HAND}"}.get(step, tale)
            lines.append(f"  WHEN  {lora:12}  {step:8}  done TIME{tale}")
    lines += [f"  {lora:12}  HOURS of training" for lora in ("anna", "cleo", "dora")]
    assert said(history) == [*lines, AGREED]


# ---------------------------------------------------------------- the same, of Datasette


def test_a_real_datasette_answers_as_why_does(history: Path) -> None:
    """The installed Datasette reads the record and datasette.yaml as their files are, and is asked in-process."""
    from datasette.app import Datasette
    from datasette.utils import parse_metadata

    shipped = Path(questions.__file__).with_name("datasette.yaml").read_text(encoding="utf-8")
    option = "config" if "config" in inspect.signature(Datasette).parameters else "metadata"  # -c of 1.0, -m before
    served = Datasette([str(history / "lorafactory.db")], **{option: parse_metadata(shipped)})
    with Store(history / "lorafactory.db", readonly=True) as store:
        picture, anna = hashes(history, "anna")["0001.png"], history / "loras" / "anna"
        train, repeats = (store.runs("anna", 1, step=step)[0] for step in ("train", "repeats"))
        look = store.ask("looks", sha256=picture)[0]
        values = {"sha256": picture, "lora": "anna", "run_id": train.id, "role": "manifest", **look}
        others = {
            "trained": {"sha256": images.sha256(save(history, "anna", 2))},
            "written": {"sha256": images.sha256(history / "loras" / "anna" / "anna.safetensors")},
            "verdicts": {"run_id": repeats.id},
            "moved": {"lora": "anna", "place": (folder(history, "anna") / "0001.png").relative_to(anna).as_posix()},
        }
        for name, question in QUESTIONS.items():
            asked = {k: v for k, v in values.items() if f":{k}" in question.sql} | others.get(name, {})
            rows = store.ask(name, **asked)
            assert rows or name == "revoked", f"{name} is not asked of anything"
            assert answer(served, name, asked) == rows, name


def answer(served: Any, name: str, values: dict[str, Any]) -> list[dict[str, Any]]:
    """The rows of a canned query, by Datasette's JSON."""

    async def ask() -> Any:
        return await served.client.get(f"/lorafactory/{name}.json", params={"_shape": "objects", **values})

    with ThreadPoolExecutor(1) as beside:  # a browser's driver leaves a loop running in this thread
        told = beside.submit(lambda: asyncio.run(ask())).result().json()
    assert told["ok"] is True, told
    rows: list[dict[str, Any]] = told["rows"]
    return rows
