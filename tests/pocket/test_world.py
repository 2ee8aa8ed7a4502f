"""The toy world: captions that are true, and as long as BLIP needs them."""

import random

import pytest

from lorafactory.pocket import grade, world


def scenes(count: int, seed: int = 5) -> list[world.Scene]:
    rng = random.Random(seed)
    return [world.random_scene(rng) for _ in range(count)]


def test_every_caption_has_eleven_words_of_the_vocabulary():
    known = set(world.vocabulary())
    for scene in scenes(500):
        words = scene.caption().split()
        assert len(words) >= 11
        assert set(words) <= known


def test_taking_out_an_accessory_leaves_the_rest_of_the_caption():
    rng = random.Random(1)
    for scene in (s for s in scenes(300) if s.extra):
        bare = world.Scene(scene.shape, scene.colour, scene.size, scene.background, "", scene.text)
        assert scene.caption().replace(f" {scene.extra}", "") == bare.caption()
        assert world.draw(scene, rng).tobytes() != world.draw(bare, rng).tobytes()


def test_neighbours_differ_in_one_attribute_and_are_drawn():
    for scene in scenes(60):
        found = world.neighbours(scene)
        assert len(found) >= 20
        for other in found:
            differing = [f for f in ("shape", "colour", "size", "background", "extra", "text")
                         if getattr(scene, f) != getattr(other, f)]  # fmt: skip
            assert len(differing) == 1
            assert other.colour not in other.background
            world.draw(other, random.Random(0))


def test_a_scene_is_drawn_the_same_from_the_same_generator():
    scene = scenes(1)[0]
    first, second = (world.draw(scene, random.Random(3)) for _ in range(2))
    assert first.tobytes() == second.tobytes()
    assert first.size == (world.SIDE, world.SIDE)


def test_the_grader_reads_true_pictures():
    assert grade.self_test(200) >= 0.98


@pytest.mark.parametrize("attribute", ["shape", "colour", "background"])
def test_the_grader_sees_a_wrong_attribute(attribute: str):
    rng = random.Random(8)
    wrong = 0
    for _ in range(40):
        scene = world.random_scene(rng, plain=True)
        other = rng.choice([n for n in world.neighbours(scene) if not n.extra and not n.text
                            and getattr(n, attribute) != getattr(scene, attribute)])  # fmt: skip
        wrong += not grade.see(world.draw(other, rng)).agrees(scene)
    assert wrong >= 39
