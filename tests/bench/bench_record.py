"""What questions cost of a record as it is after years: 200 LoRAs, 100 000 images, 2 million decisions.

Told: megabytes of the file (at most 500 are aimed at), and milliseconds of the queries behind `why` (at most 100).
"""

from __future__ import annotations

import hashlib
import sys
import tempfile
import time
from pathlib import Path

from lorafactory.recording import canonical_json
from lorafactory.store import Store

LORAS, IMAGES, DECISIONS = 200, 100_000, 2_000_000
STEPS = ("rename", "dedupe", "filter", "caption", "repeats", "train", "compare", "pick")


def sha(*of: object) -> str:
    return hashlib.sha256(" ".join(map(str, of)).encode()).hexdigest()


def fill(path: Path, loras: int, images: int, decisions: int) -> None:
    """Write as the steps do: every step sees and leaves the set, the decisions are spread over the first five."""
    each, rules = images // loras, decisions // images
    with Store(path) as store:
        for lora in range(loras):
            pictures = {f"{i:04}.png": sha(lora, i) for i in range(each)}
            for number, step in enumerate(STEPS):
                with store.run(f"lora{lora:03}", step, version=1, key="k", settings={"clip": 0.985}) as run:
                    for name, digest in pictures.items():
                        run.used("sees", name, digest)
                        run.made("picture", name, digest)
                        run.made("caption", name, sha(digest, "text"))
                        for rule in range(rules // 5 if number < 5 else 0):
                            told = {"score": 0.25 + rule, "threshold": 0.985}
                            run.note(
                                name, digest, "set aside" if rule == number == 1 else "kept", f"rule {rule}", **told
                            )
                        if step == "rename":
                            run.derived(digest, sha("original", digest), "png")
                            run.looked(digest, sha("pixels", digest), int(digest[:16], 16))
                        if step == "train":
                            run.used("trained on", name, digest)
                    if step == "train":
                        run.made("save", f"{lora}.safetensors", sha("save", lora))
                        run.kept("manifest", sha("definition", lora), canonical_json({"pictures": pictures}))


def answers(store: Store, lora: int) -> dict[str, float]:
    """Milliseconds of every question about one picture and its LoRA."""
    digest, name = sha(lora, 7), f"lora{lora:03}"
    train = store.last(name, "train")
    assert train is not None
    asked = {
        "decisions": {"sha256": digest},
        "trainings": {"sha256": sha("original", digest)},
        "offspring": {"sha256": sha("original", digest)},
        "looks": {"sha256": digest},
        "pixels": {"pixels": sha("pixels", digest)},
        "near": {"phash": int(digest[:15], 16)},
        "revoked": {"sha256": digest},
        "lora": {"lora": name},
        "excluded": {"lora": name},
        "captions": {"lora": name, "run_id": train.id},
        "trained": {"sha256": sha("save", lora)},
        "kept": {"run_id": train.id, "role": "manifest"},
        "written": {"sha256": sha("save", lora)},
        "models": {"run_id": train.id},
        "retries": {"lora": name},
        "verdicts": {"run_id": train.id},
        "hours": {},
        "agreement": {},
    }
    took = {}
    for question, values in asked.items():
        began = time.perf_counter()
        store.ask(question, **values)
        took[question] = 1000 * (time.perf_counter() - began)
    return took


def main() -> None:
    size = [int(n) for n in sys.argv[1:]] or [LORAS, IMAGES, DECISIONS]
    with tempfile.TemporaryDirectory() as folder:
        path, began = Path(folder) / "lorafactory.db", time.perf_counter()
        fill(path, *size)
        seconds, rows = time.perf_counter() - began, " ".join(f"{n:,}" for n in size)
        print(
            f"record: {rows} LoRAs, images, decisions; {path.stat().st_size / 1e6:.0f} MB, written in {seconds:.0f} s"
        )
        with Store(path, readonly=True) as store:
            for question, milliseconds in answers(store, size[0] // 2).items():
                print(f"    {question:10} {milliseconds:7.2f} ms")


if __name__ == "__main__":
    main()
