"""Things as the base draws them: DINOv2's pocket form tells what came back whole from what was half forgotten."""

import torch

from lorafactory.pocket import floors, redrawn, things


def test_what_comes_back_from_the_vae_is_the_thing_and_what_is_half_forgotten_is_not():
    pipe, chosen = redrawn.pipeline(), range(16)
    known = [things.draw(*redrawn.thing_of(i)) for i in chosen]
    again = [things.draw(thing, rng) for thing, rng in map(redrawn.thing_of, chosen)]
    assert [a.tobytes() for a in again] == [k.tobytes() for k in known]
    back, lost = redrawn.through_vae(pipe, known), redrawn.half_forgotten(pipe, known, 4, chosen)
    assert redrawn.half_forgotten(pipe, known[:2], 4, chosen[:2])[1].tobytes() == lost[1].tobytes()
    seen = floors.rows([*known, *back, *lost]).unflatten(0, (3, -1))
    whole, forgotten = (seen[1:] * seen[0]).sum(-1)
    assert whole.mean() > 0.85 and forgotten.mean() < 0.6
    assert (whole > forgotten).sum() >= 14


def test_pictures_are_kept_as_they_are_seen():
    pictures = [things.draw(*redrawn.thing_of(i)) for i in range(2)]
    kept = redrawn.small(pictures)
    assert kept.shape[:2] == (2, 3) and kept.dtype == torch.uint8
