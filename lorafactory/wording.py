"""Captions as text: edits that done twice are as done once, and the phrases that a sentence hangs on its head."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass

from lorafactory.errors import SettingsError

ARROW = "=>"
ROUNDS = 10
"""Times that find-replace is tried until nothing changes."""
MOSTLY, ENOUGH = 0.6, 5
"""Share of the captions above which a phrase is in most of them, and captions below which nothing is most."""

_HANGERS = "with|holding|wearing|in|on|next to|and"
"""Words at which a sentence is cut: what follows one can be left out and the rest still says something."""
_WHERE = r"\s+[io]n\s+(?:\w+\s+)?(?:arm|back|ear|face|finger|hand|head|lap|mouth|neck|shoulder|wrist)s?\b"
"""`in the hand` and `on her head` say where the thing before them is, and go with it."""
_CUT = re.compile(rf"(?=,)|(?<![\s,])(?!{_WHERE})(?=\s+(?:{_HANGERS})\b)", re.IGNORECASE)
_HANGS = re.compile(rf"^[\s,]*(?:{_HANGERS})\b", re.IGNORECASE)
_LEAD = re.compile(rf"^[\s,]*(?:(?:{_HANGERS}|front of|top of|of)\b\s*)+", re.IGNORECASE)


@dataclass(frozen=True)
class Edits:
    """What is to be done to a caption, with `{trigger}` and `{class}` already filled in."""

    prefix: str = ""
    suffix: str = ""
    replace: tuple[tuple[re.Pattern[str], str], ...] = ()
    add: tuple[str, ...] = ()
    remove: tuple[str, ...] = ()
    trigger: str = ""


# ---------------------------------------------------------------- edits


def rule(text: str) -> tuple[re.Pattern[str], str]:
    """Read `FIND => PUT`: a regular expression, and what takes its place; SettingsError says what is wrong."""
    find, arrow, put = (part.strip() for part in text.partition(ARROW))
    if not arrow or not find:
        raise SettingsError(f'{text!r}: write it as FIND {ARROW} PUT, as in "a man {ARROW} anna"')
    try:
        pattern = re.compile(find)
        pattern.sub(put, "")
    except re.error as error:
        raise SettingsError(f"{text!r}: {error}; put a backslash before signs that are meant as they stand") from error
    return pattern, put


def core(text: str, e: Edits) -> str:
    """The caption without prefix and suffix; all of it if it is nothing else."""
    start, end = e.prefix.strip(), e.suffix.strip()
    inner = text[len(start) :].lstrip() if _opens(text, start) else text
    inner = text if _placed(inner, e) else inner  # it would not get its prefix back
    inner = inner[: -len(end)].rstrip() if end and _closes(inner, end) else inner
    return inner or text


def opening(text: str, e: Edits) -> str:
    """The prefix with the space after it, as it stands at the head of a caption; empty where it does not."""
    start = e.prefix.strip()
    return text[: len(text) - len(text[len(start) :].lstrip())] if _opens(text, start) else ""


def mended(text: str, e: Edits) -> str:
    """The core with find-replace done and tags taken out. SettingsError if find-replace never comes to an end."""
    for _ in range(ROUNDS):
        before = text
        for pattern, put in e.replace:
            text = _replaced(text, pattern, put)
        text = text if text == before else tidy(text)
        if text == before:
            return _without_tags(text, e.remove)
    rules = ", ".join(f'"{pattern.pattern} {ARROW} {put}"' for pattern, put in e.replace)
    raise SettingsError(f'--replace {rules} changes "{text}" each time anew; write it so that it finds nothing twice')


def dressed(text: str, e: Edits, *, own: bool = False) -> str:
    """The core with tags added, then prefix and suffix, each once; nothing is put on a caption that says nothing.

    `own`: a person wrote it, so where it names the trigger in a place of its own it needs no prefix that does.
    """
    if not text:
        return text
    text = with_tags(text, e.add)
    start, end = e.prefix.strip(), e.suffix.strip()
    if start and not (own and _placed(text, e)) and not _opens(text, start):
        text = f"{start} {text}"
    if end and not _closes(text, end):
        text += end if end[0] in ",.;:!?" else f" {end}"
    return text


def settled(text: str, e: Edits) -> str:
    """Return an edited caption; SettingsError if the same edits would change it once more, as they undo each other."""
    again = dressed(mended(core(text, e), e), e, own=True) if text else text
    if again != text:
        raise SettingsError(f'these edits change a caption each time anew: "{text}" would become "{again}"')
    return text


def with_tags(text: str, tags: Iterable[str]) -> str:
    """Append each tag that is no part of the caption yet."""
    for tag in tags:
        if tag.strip().casefold() not in {part.strip().casefold() for part in text.split(",")}:
            text = f"{text}, {tag.strip()}"
    return text


def says(text: str, words: str) -> bool:
    """True if these words are in the text, as words and in any case."""
    return re.search(rf"(?<!\w){re.escape(words)}(?!\w)", text, re.IGNORECASE) is not None


def tidy(text: str) -> str:
    """Close the gaps that were left where something was taken out."""
    text = re.sub(r"\s+", " ", text)
    text = re.sub(r"\s+(?=[,.;:!?])|,(?=\s*,)", "", text)
    return text.strip(" ,")


def _replaced(text: str, pattern: re.Pattern[str], put: str) -> str:
    """`pattern.sub`, except where what would be put in is there already, as `4nna, a woman` for `a woman`."""

    def new(match: re.Match[str]) -> str:
        value = match.expand(put)
        starts = (match.start() - again.start() for again in pattern.finditer(value))
        return match[0] if any(start >= 0 and text.startswith(value, start) for start in starts) else value

    return pattern.sub(new, text)


def _without_tags(text: str, tags: Collection[str]) -> str:
    out = {tag.strip().casefold() for tag in tags}
    parts = [part.strip() for part in text.split(",")]
    kept = [part for part in parts if part.casefold() not in out]
    return text if len(kept) == len(parts) else ", ".join(filter(None, kept))


def _placed(text: str, e: Edits) -> bool:
    """True if the prefix is there for the trigger, and the text names it by itself."""
    return bool(e.trigger) and says(e.prefix, e.trigger) and says(text, e.trigger)


def _opens(text: str, start: str) -> bool:
    return bool(start) and text.startswith(start) and not (start[-1].isalnum() and text[len(start) :][:1].isalnum())


def _closes(text: str, end: str) -> bool:
    return text.endswith(end) and not (end[0].isalnum() and text[: -len(end)][-1:].isalnum())


# ---------------------------------------------------------------- phrases


def pieces(text: str) -> list[str]:
    """Cut a sentence before every hanger and comma; joined, the pieces are the text. The first is the head."""
    found: list[str] = []
    for piece in _CUT.split(text):
        if found and _HANGS.match(found[-1]) and not noun(found[-1]):  # "and holding a cup" is one piece
            found[-1] += piece
        else:
            found.append(piece)
    return found


def phrases(text: str) -> list[int]:
    """Which pieces are phrases: those behind the head that begin with a hanger and name something."""
    return [i for i, piece in enumerate(pieces(text)) if i and _HANGS.match(piece) and noun(piece)]


def without(text: str, left_out: Collection[int]) -> str:
    """The sentence without some of its pieces."""
    return tidy("".join(piece for i, piece in enumerate(pieces(text)) if i not in left_out))


def noun(piece: str) -> str:
    """What a phrase names: `a red hat` of `, with a red hat`."""
    return _LEAD.sub("", piece).strip(" ,.")


def bare(piece: str) -> str:
    """A phrase as it is quoted and counted."""
    return " ".join(piece.strip(" ,.").split())


def repeated(captions: Sequence[str]) -> dict[str, int]:
    """Phrases that are in most captions, and in how many."""
    counts = Counter(p for text in captions for p in {bare(pieces(text)[i]).lower() for i in phrases(text)})
    most = MOSTLY * len(captions)
    return {p: n for p, n in counts.most_common() if n > most} if len(captions) >= ENOUGH else {}
