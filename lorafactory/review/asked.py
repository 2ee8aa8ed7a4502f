"""What the page asks for when it changes something: every field is named here, and nothing else is taken."""

from __future__ import annotations

from typing import Literal

from pydantic import BaseModel, ConfigDict, Field

from lorafactory.crops import Box
from lorafactory.review.acts import Shown


class Asked(BaseModel):
    """Base of what a change brings."""

    model_config = ConfigDict(extra="forbid", frozen=True)


class One(Asked):
    """A picture as the page showed it."""

    name: str
    sha: str
    text: str

    @property
    def shown(self) -> Shown:
        return Shown(self.name, self.sha, self.text)


class Some(Asked):
    pictures: list[One] = Field(min_length=1)
    reason: str = "unwanted"


class Crop(Asked):
    name: str
    sha: str
    was: Box | None = None
    box: Box | None = None


class Text(Asked):
    name: str
    text: str
    """Hash of the caption that was shown."""
    caption: str


class Texts(Asked):
    captions: list[Text] = Field(min_length=1)
    said: str = Field("", max_length=200)


class Phrase(Asked):
    name: str
    text: str
    phrase: str


class Replace(Asked):
    names: list[str]
    find: str = Field(min_length=1)
    put: str = ""
    words: bool = False
    case: bool = False


class Counted(Asked):
    texts: list[str]


class Save(Asked):
    save: str
    sha256: str


class Sat(Asked):
    id: str
    number: int = -1
    answer: Literal["left", "right", "same", "more", "end"] = "end"


class Named(Asked):
    name: str
