"""What the tests of the record share."""

from __future__ import annotations

import multiprocessing
import sqlite3
from pathlib import Path

from lorafactory.store import Store


def sha(letter: str) -> str:
    return letter * 64


def begin(store: Store, step: str = "dedupe", lora: str = "anna", **more):
    return store.run(lora, step, **{"version": 1, "key": "k", "settings": {}, **more})


def query(path: Path, sql: str) -> list[tuple]:
    db = sqlite3.connect(path)
    try:
        return db.execute(sql).fetchall()
    finally:
        db.close()


def forked(target, *args) -> multiprocessing.Process:
    child = multiprocessing.get_context("fork").Process(target=target, args=args)
    child.start()
    return child
