"""Captions: is there one, can it be read, how much of it does the base read, and what do all of them say."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from lorafactory.dataset import Picture
from lorafactory.setcheck import SEED, Finding, Verdict, count, some
from lorafactory.training.settings import TrainSettings
from lorafactory.wording import ENOUGH, MOSTLY, says

LONGEST = 6
"""Words of a phrase."""
# fmt: off
EMPTY = frozenset((
    "a", "an", "the", "of", "in", "on", "at", "to", "and", "or", "with", "for", "by", "from", "is", "are", "his",
    "her", "its", "that", "there", "it",
))
"""Words that make no phrase by themselves."""
# fmt: on
WORD = re.compile(r"[^\W_]+(?:['’-][^\W_]+)*")


def findings(
    pictures: Sequence[Picture], trigger: str, word: str, base: Path | None, s: TrainSettings
) -> list[Finding]:
    """The rows about captions; `word` is the class word, `base` says whose tokenizer reads them."""
    captions, unreadable = read(pictures)
    if pictures and not captions and not unreadable:
        value = "none yet: `lora caption` or `lora make` writes them"
        return [Finding("captions", value, "one beside each picture", SEED, "note")]
    names = [picture.name for picture in pictures]
    texts = {name: text for name, text in captions.items() if text}
    return [
        present(names, captions, unreadable),
        length(texts, base, s),
        triggered(texts, trigger),
        repeated(texts, trigger, word),
    ]


def read(pictures: Sequence[Picture]) -> tuple[dict[str, str], list[str]]:
    """Captions by the picture's name, and the pictures whose caption is not UTF-8."""
    captions, unreadable = {}, []
    for picture in pictures:
        if picture.garbled:
            unreadable.append(picture.name)
        elif (text := picture.caption) is not None:
            captions[picture.name] = text
    return captions, unreadable


def present(names: Sequence[str], captions: Mapping[str, str], unreadable: Sequence[str]) -> Finding:
    missing = [name for name in names if name not in captions and name not in unreadable]
    empty = [name for name, text in captions.items() if not text]
    told = [
        f"{len(found)} {kind} ({some(found, 3)})"
        for kind, found in (("not UTF-8", unreadable), ("missing", missing), ("empty", empty))
        if found
    ]
    value = "; ".join(told) or f"{len(captions)}, all there"
    verdict: Verdict = "note" if told else "ok"
    wanted = "one beside each picture, UTF-8, not empty"
    return Finding("captions", value, wanted, SEED, verdict, (*unreadable, *missing, *empty))


# ---------------------------------------------------------------- how much is read


def length(captions: Mapping[str, str], base: Path | None, s: TrainSettings) -> Finding:
    """Which words the base will never see."""
    what, wanted, rule = "caption length", f"{s.max_tokens} tokens at most, in one line", "the base's tokenizer"
    # a token is at least a byte, so a line of so many bytes needs no tokenizer
    doubtful = {name: text for name, text in captions.items() if "\n" in text or len(dressed(text, s)) > s.max_tokens}
    cut: dict[str, str] = {}
    if doubtful:
        from lorafactory.families._vocabulary import tokenizer_of

        reader = tokenizer_of(base)
        cut = {name: words for name, text in doubtful.items() if (words := unread(text, reader, s))}
    if not cut:
        return Finding(what, "all are read whole", wanted, rule)
    told = some([f'{name} loses "{shortened(words)}"' for name, words in cut.items()], 3)
    return Finding(what, f"{count(len(cut), 'caption')} cut: {told}", wanted, rule, "note", tuple(cut))


def dressed(text: str, s: TrainSettings) -> bytes:
    """The caption's first line between the training's prefix and suffix."""
    line = text.partition("\n")[0]
    return " ".join(part for part in (s.caption_prefix, line, s.caption_suffix) if part).encode()


def unread(text: str, tokenizer: Any, s: TrainSettings) -> str:
    """What of a caption training never shows: what is beyond its tokens, and all lines but the first."""
    _, _, rest = text.partition("\n")
    beyond = cut_words(dressed(text, s).decode(), tokenizer, s.max_tokens)
    return " ".join(part for part in (beyond, "" if s.wildcards else rest) if part)


def cut_words(text: str, tokenizer: Any, room: int) -> str:
    """The end of a text that lies beyond `room` tokens, from the first word that is not read whole."""
    told = tokenizer(text, return_offsets_mapping=True, add_special_tokens=False, verbose=False)
    places = told["offset_mapping"]
    if len(places) <= room:
        return ""
    start = places[room][0]
    while start > 0 and not text[start - 1].isspace():
        start -= 1
    return text[start:].strip()


def shortened(text: str, most: int = 60) -> str:
    return text if len(text) <= most else text[:most].rstrip() + " ..."


# ---------------------------------------------------------------- what they say


def triggered(captions: Mapping[str, str], trigger: str) -> Finding:
    what, wanted = "trigger", "in every caption"
    if not trigger:
        return Finding(what, "none is named", wanted, SEED)
    lacking = tuple(name for name, text in captions.items() if not says(text, trigger))
    value = (
        f"{trigger} is not in {len(lacking)} of {len(captions)}: {some(lacking)}" if lacking else f"{trigger} in all"
    )
    return Finding(what, value, wanted, SEED, "note" if lacking else "ok", lacking)


def repeated(captions: Mapping[str, str], trigger: str, word: str) -> Finding:
    """Phrases that most captions share: text that always comes along is bound to the LoRA as the trigger is."""
    what, wanted = "same phrase", f"none in {MOSTLY:.0%} of the captions: it is learned like the trigger"
    common = phrases(list(captions.values()), {trigger.lower(), word.lower()})
    if not common:
        return Finding(what, "none in most captions", wanted, "lorafactory")
    told = some([f'"{phrase}" in {n} of {len(captions)}' for phrase, n in common], 3)
    return Finding(what, told, wanted, "lorafactory", "note")


def phrases(captions: Sequence[str], known: set[str]) -> list[tuple[str, int]]:
    """Phrases of most captions and in how many each is, most frequent first; the longest stands for its parts."""
    if len(captions) < ENOUGH:
        return []
    counts = Counter(phrase for text in captions for phrase in set(parts(text, known)))
    common = {phrase: n for phrase, n in counts.items() if n >= MOSTLY * len(captions)}
    whole = [
        p for p, n in common.items() if not any(p != q and f" {p} " in f" {q} " and common[q] >= n for q in common)
    ]
    return sorted(((" ".join(p.split()), common[p]) for p in whole), key=lambda found: (-found[1], found[0]))


def parts(text: str, known: set[str]) -> Iterator[str]:
    """Every run of 2 to LONGEST words between commas, and tags of one word; the trigger and the class word split."""
    for clause in re.split(r"[,.;:\n]", text.lower()):
        runs: list[list[str]] = [[]]
        for found in WORD.findall(clause):
            if found in known:
                runs.append([])
            else:
                runs[-1].append(found)
        for run in map(trimmed, runs):
            least = 1 if len(runs) == 1 and len(run) == 1 else 2
            for size in range(least, LONGEST + 1):
                for i in range(len(run) - size + 1):
                    piece = run[i : i + size]
                    if piece == trimmed(piece):
                        yield " ".join(piece)


def trimmed(words: list[str]) -> list[str]:
    """The words without those at either end that make no phrase."""
    full = [i for i, word in enumerate(words) if word not in EMPTY]
    return words[full[0] : full[-1] + 1] if full else []
