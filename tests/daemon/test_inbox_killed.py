"""The daemon is killed at every moment of its work on one drop; started anew, it ends where it would have ended."""

from __future__ import annotations

from pathlib import Path

import pytest
from dropped import DROPS, Desk, Prepare, end, folder
from killing import dying

from lorafactory.daemon.inbox import CLAIMS, KEPT


@pytest.mark.parametrize("every", [7, pytest.param(1, marks=pytest.mark.slow)])
@pytest.mark.parametrize("prepare", DROPS)
def test_killed_at_any_moment_it_ends_the_same(tmp_path: Path, prepare: Prepare, every: int):
    undisturbed = Desk(tmp_path / "undisturbed")
    prepare(undisturbed)
    with dying(1 << 30) as life:
        undisturbed.settled()
    wanted = end(undisturbed)
    assert life.lived > 20
    assert not [n for n in wanted[0] if n.startswith(f"inbox/{CLAIMS}")]
    for moment in range(1, life.lived + 1, every):
        desk = Desk(tmp_path / str(moment))
        prepare(desk)
        with dying(moment):
            desk.settled()
        desk.start()
        desk.settled()
        desk.settled()
        assert end(desk) == wanted, f"killed at moment {moment} of {life.lived}"
        desk.store.close()
    undisturbed.store.close()


def test_what_was_put_away_is_beside_the_pictures_and_hidden(tmp_path: Path):
    desk = Desk(tmp_path / "workspace")
    folder(desk)
    desk.settled()
    assert all(name.startswith(f"{KEPT}/") for name in desk.sources("anna") if not name[0].isdigit())
    assert [n for n in desk.sources("anna") if n[0].isdigit()] == ["1.png", "1.txt", "2.png", "2.txt"]
