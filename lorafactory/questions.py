"""Every question that is asked of the record, as SQL: `why` runs these strings, and so does Datasette.

`datasette.yaml` is written from here, so the two cannot drift:

    python -m lorafactory.questions > lorafactory/datasette.yaml
    datasette lorafactory.db -m lorafactory/datasette.yaml      (-c with Datasette 1.0)
"""

from __future__ import annotations

from typing import NamedTuple


class Question(NamedTuple):
    """A question in words, and as SQL with named parameters."""

    title: str
    sql: str


# Captions are left out: equal texts are equal bytes, so a text in two sets says nothing about the pictures.
# Of what a training left, the set as it stood is no offspring of each of its pictures; the saves are.
_READ = """edge i ON i.blob_id = hit.id AND i.direction = 'in'
    AND i.role NOT IN ('caption', 'model') AND i.name NOT LIKE '%.txt'"""
_HIT = f"""WITH RECURSIVE hit (id, depth) AS (
  SELECT id, 0 FROM blob WHERE sha256 = :sha256
  UNION SELECT d.dst_id, 1 FROM hit CROSS JOIN derived d ON d.src_id = hit.id
  UNION SELECT o.blob_id, 1 FROM hit CROSS JOIN {_READ}
    CROSS JOIN run r ON r.id = i.run_id AND r.step = 'train'
    CROSS JOIN edge o ON o.run_id = r.id AND o.direction = 'out' AND o.role = 'save')"""
RUN = "id, ulid, lora, step, version, status, key, settings, started_at, ended_at, wall_s, error, parent"
"""The columns of a `RunRow`."""

QUESTIONS = {
    "decisions": Question(
        "What was decided about a picture, by its sha256",
        "SELECT * FROM v_decision WHERE sha256 = :sha256 ORDER BY id",
    ),
    "trainings": Question(
        "Which trainings saw a picture, or anything that came from it",
        f"""{_HIT}
SELECT {RUN} FROM run WHERE step = 'train' AND id IN (SELECT i.run_id FROM hit CROSS JOIN {_READ}) ORDER BY id""",
    ),
    "offspring": Question(
        "What came from a file: pictures, saves, what was drawn with them",
        f"{_HIT}\nSELECT DISTINCT b.sha256 FROM hit CROSS JOIN blob b ON b.id = hit.id WHERE hit.depth = 1",
    ),
    "pixels": Question(
        "Which files show the same pixels",
        "SELECT b.sha256 FROM look l JOIN blob b ON b.id = l.blob_id WHERE l.pixels = :pixels ORDER BY b.id",
    ),
    "looks": Question(
        "What a picture looks like, by its sha256",
        "SELECT l.pixels, l.phash FROM blob b CROSS JOIN look l ON l.blob_id = b.id WHERE b.sha256 = :sha256",
    ),
    "near": Question(
        "Which pictures may look alike: those with an equal fifth of the perceptual hash",
        """SELECT b.sha256, l.phash FROM look l JOIN blob b ON b.id = l.blob_id
WHERE l.phash & 8191 = :phash & 8191 OR l.phash >> 13 & 8191 = :phash >> 13 & 8191
  OR l.phash >> 26 & 8191 = :phash >> 26 & 8191 OR l.phash >> 39 & 8191 = :phash >> 39 & 8191
  OR l.phash >> 52 & 4095 = :phash >> 52 & 4095
ORDER BY b.id""",
    ),
    "revoked": Question(
        "Whether a file is revoked, and why",
        "SELECT * FROM v_revocation WHERE sha256 = :sha256",
    ),
    "lora": Question(
        "The trainings of a LoRA, newest first",
        "SELECT * FROM v_lora WHERE lora = :lora ORDER BY run_id DESC",
    ),
    "excluded": Question(
        "What is not in a LoRA's set, and what took it out",
        """SELECT * FROM v_excluded WHERE lora = :lora AND run_id > (
  SELECT coalesce(max(id), 0) FROM run WHERE lora = :lora AND step = 'begun anew') ORDER BY image, id""",
    ),
    "captions": Question(
        "Who wrote each caption of a LoRA's set, by a run",
        """SELECT d.image, d.rule, d.after, max(d.id) AS id FROM run r CROSS JOIN decision d ON d.run_id = r.id
WHERE r.lora = :lora AND r.id <= :run_id
  AND d.verdict IN ('captioned', 'caption changed', 'caption restored', 'caption removed')
GROUP BY d.image""",
    ),
    "trained": Question(
        "Which training a LoRA file is of, by a sha256 that it left",
        """SELECT r.id AS run_id, r.lora FROM blob b CROSS JOIN edge e ON e.blob_id = b.id AND e.direction = 'out'
CROSS JOIN run r ON r.id = e.run_id AND r.step = 'train' WHERE b.sha256 = :sha256 ORDER BY r.id DESC LIMIT 1""",
    ),
    "kept": Question(
        "A text that a run kept: its manifest, or its plan",
        """SELECT CAST(c.bytes AS TEXT) AS text FROM edge e JOIN content c ON c.blob_id = e.blob_id
WHERE e.run_id = :run_id AND e.direction = 'out' AND e.role = :role""",
    ),
    "written": Question(
        "Which runs wrote a file, by its sha256",
        """SELECT r.ulid AS run, r.lora, r.step, r.started_at, e.role, e.name FROM blob b
CROSS JOIN edge e ON e.blob_id = b.id AND e.direction = 'out' AND e.role NOT IN ('picture', 'caption')
CROSS JOIN run r ON r.id = e.run_id WHERE b.sha256 = :sha256 ORDER BY r.id""",
    ),
    "models": Question(
        "Which models a run asked, by its id",
        "SELECT name, sha256 FROM v_edge WHERE run_id = :run_id AND direction = 'in' AND role = 'model' ORDER BY name",
    ),
    "retries": Question(
        "How often the jobs of a LoRA were tried again",
        "SELECT coalesce(sum(tries), 0) AS retries FROM job INDEXED BY job_lora WHERE lora = :lora",
    ),
    "verdicts": Question(
        "What a run decided, and of how many pictures; kept are those of which it said nothing else",
        """SELECT verdict, count(DISTINCT image) AS n FROM decision WHERE run_id = :run_id AND (
  verdict <> 'kept' OR image NOT IN (SELECT image FROM decision WHERE run_id = :run_id AND verdict <> 'kept'))
GROUP BY verdict ORDER BY min(id)""",
    ),
    "hours": Question(
        "Hours of training per LoRA",
        """SELECT lora, sum(wall_s) / 3600 AS hours, count(*) AS trainings FROM run
WHERE step = 'train' AND wall_s IS NOT NULL GROUP BY lora ORDER BY lora""",
    ),
    "agreement": Question(
        "Of which LoRAs a person chose a save, and whether the verdict says the same",
        """SELECT r.lora, m.value AS agrees, max(r.id) AS run_id FROM run r
CROSS JOIN metric m ON m.run_id = r.id AND m.name = 'agrees' WHERE r.step = 'pick' AND NOT EXISTS (
  SELECT 1 FROM run u WHERE u.lora = r.lora AND u.step = 'undo' AND json_extract(u.settings, '$.undoes') = r.ulid)
GROUP BY r.lora""",
    ),
    "moved": Question(
        "Where a file of a LoRA lay before it was moved to a place, the latest first",
        """SELECT c.place_before AS place FROM run r CROSS JOIN change c ON c.run_id = r.id
WHERE r.lora = :lora AND c.place_after = :place AND c.place_before IS NOT NULL ORDER BY c.id DESC""",
    ),
    "timeline": Question(
        "What happened to a LoRA, in order",
        "SELECT * FROM v_timeline WHERE lora = :lora ORDER BY at",
    ),
}


def as_yaml() -> str:
    """Datasette's configuration, of either version: the questions as canned queries."""
    told = ["# Written by `python -m lorafactory.questions`; do not edit.", "title: lorafactory's record"]
    told += ["databases:", "  lorafactory:", "    queries:"]
    for name, (title, sql) in QUESTIONS.items():
        told += [f"      {name}:", f'        title: "{title}"', "        sql: |-"]
        told += [f"          {line}" for line in sql.split("\n")]
    return "\n".join(told) + "\n"


if __name__ == "__main__":
    print(as_yaml(), end="")  # noqa: T201
