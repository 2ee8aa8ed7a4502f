"""`lora verify`: what is gone, changed or from nowhere, in a workspace and in a file that came from anywhere."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from lorafactory import images, manifest
from lorafactory.store import Store
from tests.conftest import Said
from tests.history import save
from tests.records import begin

Lora = Callable[..., Said]
pytestmark = pytest.mark.xdist_group("history")


def flipped(path: Path) -> None:
    """Change the last bit."""
    data = bytearray(path.read_bytes())
    data[-1] ^= 1
    path.write_bytes(data)


# ---------------------------------------------------------------- a file


def test_a_file_holds_without_the_record_and_a_change_is_found(lora: Lora, history: Path, tmp_path: Path) -> None:
    chosen = history / "loras" / "anna" / "anna.safetensors"
    statement = json.loads(chosen.with_suffix(manifest.SUFFIX).read_text(encoding="utf-8"))
    assert statement["subject"][0]["digest"] == {"sha256": images.sha256(chosen)}
    materials = statement["predicate"]["buildDefinition"]["resolvedDependencies"]
    assert [m["name"] for m in materials] == ["base", "picture", "picture", "picture"]
    assert [m.get("annotations", {}).get("crop") for m in materials] == [None, None, None, [8, 4, 72, 68]]
    file, beside = tmp_path / "anna.safetensors", tmp_path / "anna.prov.json"
    shutil.copy(chosen, file)
    told = f"anna.safetensors: as its header says; there is no {beside.name} to say what it is made of\n"
    assert lora("verify", file) == Said(0, told, "")
    shutil.copy(chosen.with_suffix(manifest.SUFFIX), beside)
    assert lora("verify", file) == Said(0, "anna.safetensors: as its header says, and anna.prov.json\n", "")
    statement["predicate"]["buildDefinition"]["externalParameters"]["settings"]["epochs"] = 4
    beside.write_text(json.dumps(statement))
    other_inputs = "anna.prov.json: its inputs are not those that the header of anna.safetensors names"
    assert lora("verify", file) == Said(3, "", f"lora: {other_inputs}\n")
    flipped(file)
    tensors = [f"its tensors are not those that its header names ({key})" for key in
               ("sshs_model_hash", "modelspec.hash_sha256")]  # fmt: skip
    about = f"anna.prov.json is about another file: the sha256 of anna.safetensors is {images.sha256(file)}"
    found = [*(f"anna.safetensors: {what}" for what in tensors), about, other_inputs]
    assert json.loads(lora("verify", file, "--json").out) == {"problems": found}
    assert not (tmp_path / "workspace").exists()


# ---------------------------------------------------------------- a workspace


def test_what_is_gone_changed_or_from_nowhere(lora: Lora, copied: Path) -> None:
    assert lora("verify", "--deep") == Said(0, f"{copied / 'lorafactory.db'}: all is as it was written down\n", "")
    anna = copied / "loras" / "anna"
    save(copied, "anna", 1).unlink()
    shutil.copy(save(copied, "anna", 3), save(copied, "anna", 2))
    (anna / "anna.json").write_text("{}")
    (anna / "source" / "1.png").write_bytes(b"other")
    shutil.copy(save(copied, "anna", 3), stray := anna / "result_current" / "stray.safetensors")
    flipped(stray)
    found = [
        f"anna: {anna / 'anna.json'} was changed since",
        "anna: anna-000001.safetensors is gone",
        f"anna: {save(copied, 'anna', 2)}: its tensors are not those that were trained",
        f"anna: {stray}: no run in this record made it",
    ]
    assert json.loads(lora("verify", "--json").out) == {"problems": found}
    deep = lora("verify", "--deep")
    found.append(f"anna: {anna / 'source' / '1.png'} was changed since")
    assert (deep.code, deep.out) == (3, "")
    assert deep.err.splitlines() == ["lora: 5 things are in the way:", *(f"  - {what}" for what in found)]


def test_a_text_of_the_record_that_is_not_whole(lora: Lora, copied: Path) -> None:
    with Store(copied / "lorafactory.db") as store, store.transaction() as db:
        ((sha,),) = db.execute("SELECT sha256 FROM content JOIN blob ON blob.id = blob_id LIMIT 1").fetchall()
        db.execute("UPDATE content SET bytes = x'00' WHERE blob_id = (SELECT id FROM blob WHERE sha256 = ?)", (sha,))
    assert lora("verify").code == 0
    assert json.loads(lora("verify", "--deep", "--json").out) == {"problems": [f"the record: text {sha} is not whole"]}


def test_a_run_that_nobody_is_at_work_on(lora: Lora, copied: Path) -> None:
    store = Store(copied / "lorafactory.db")
    at_work = begin(store, "train")
    at_work.__enter__()
    (problem,) = json.loads(lora("verify", "--json").out)["problems"]
    at = store.runs("anna", 1)[0].started_at
    assert problem == f"anna: train of {at} says it is running, and nobody is: lora make anna goes on"
