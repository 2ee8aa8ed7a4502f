"""Made-up things: the same again from the same generator, in another picture another way, and changed in a detail."""

import random

import numpy as np
import pytest
from PIL import Image

from lorafactory.pocket import things, world


def made(count: int, seed: int = 3) -> list[things.Thing]:
    rng = random.Random(seed)
    return [things.random_thing(rng) for _ in range(count)]


def drawn(thing: things.Thing, seed: int = 0) -> Image.Image:
    return things.draw(thing, random.Random(seed))


def test_a_thing_is_drawn_the_same_from_the_same_generator_and_otherwise_from_another():
    for thing in made(20):
        assert drawn(thing).tobytes() == drawn(thing).tobytes() != drawn(thing, 1).tobytes()
        assert drawn(thing).size == (world.SIDE, world.SIDE)


def test_an_altered_thing_differs_in_one_place():
    rng, same = random.Random(4), 0
    for thing in made(200):
        other = things.altered(thing, rng)
        same += other == thing
        assert (other.parts != thing.parts) + (other.marks != thing.marks) + (other.bent != thing.bent) <= 1
        assert len(set(other.parts) ^ set(thing.parts)) <= 2 and len(set(other.marks) ^ set(thing.marks)) <= 2
    assert same <= 4  # now and then another body is drawn that is the same


def test_what_is_altered_is_seen_in_the_same_colours_and_place():
    rng = random.Random(5)
    unseen = sum(drawn(thing).tobytes() == drawn(things.altered(thing, rng)).tobytes() for thing in made(100))
    assert unseen <= 8  # such as a mark under another


@pytest.mark.parametrize("way", [things.drop, things.run, things.move, things.recolour, things.resize])
def test_a_mark_is_changed_and_the_others_stay(way):
    rng = random.Random(6)
    for thing in (t for t in made(60) if t.marks):
        other = way(thing, rng)
        same = sum(a == b for a, b in zip(thing.marks, other.marks, strict=way is not things.drop))
        assert other.parts == thing.parts
        assert len(thing.marks) - len(other.marks) == (way is things.drop)
        assert way is things.drop or same == len(thing.marks) - 1


def test_a_bent_thing_stays_about_where_it_is():
    bent = things.waves(7)
    apart = [np.hypot(bx - x, by - y) for x, y in things.CIRCLE for bx, by in [bent((x, y))]]
    assert 0.01 < np.mean(apart) < 0.5
    assert all(things.waves(0)(p) == p for p in things.CIRCLE)


def test_an_unsteady_hand_draws_the_same_thing_a_little_out_of_shape():
    bent = things.waves(7, 0.03)
    apart = [np.hypot(bx - x, by - y) for x, y in things.CIRCLE for bx, by in [bent((x, y))]]
    assert np.mean(apart) > 0 and max(apart) <= 0.03 * 2 * 2**0.5
    thing = made(1)[0]
    hands = [things.draw(thing, random.Random(0), wobble) for wobble in (0.0, 0.02, 0.04)]
    apart = [np.abs(np.asarray(hand, float) - np.asarray(hands[0], float)).mean() for hand in hands]
    assert apart[0] == 0 < apart[1] and max(apart) < 255 / 4
