"""Each kept-back concept's grader, on true pictures and on near misses."""

import random

import pytest
from PIL import Image, ImageFilter, ImageOps

from lorafactory.pocket import world
from lorafactory.pocket.concepts import CONCEPTS, VIVID

SIDED = ("key", "mug", "fish")


def share(grades: list[float]) -> float:
    return sum(g >= 0.5 for g in grades) / len(grades)


def samples(name: str, count: int = 40) -> list[Image.Image]:
    rng = random.Random(f"{name} samples")
    return [CONCEPTS[name].sample(rng) for _ in range(count)]


@pytest.mark.parametrize("name", CONCEPTS)
def test_true_pictures_pass(name: str):
    grades = [CONCEPTS[name].grade(p) for p in samples(name)]
    assert share(grades) == 1.0
    assert all(0 <= g <= 1 for g in grades)


@pytest.mark.parametrize("name", CONCEPTS)
def test_slightly_soft_pictures_pass(name: str):
    soft = [p.filter(ImageFilter.GaussianBlur(0.8)) for p in samples(name)]
    assert share([CONCEPTS[name].grade(p) for p in soft]) >= 0.9


@pytest.mark.parametrize("name", CONCEPTS)
def test_pictures_of_the_world_do_not_pass(name: str):
    rng = random.Random(11)
    world_pictures = [world.draw(world.random_scene(rng), rng) for _ in range(200)]
    assert share([CONCEPTS[name].grade(p) for p in world_pictures]) <= 0.02


@pytest.mark.parametrize("name", CONCEPTS)
def test_the_other_concepts_do_not_pass(name: str):
    for other in CONCEPTS:
        if other != name:
            assert share([CONCEPTS[name].grade(p) for p in samples(other, 20)]) == 0


@pytest.mark.parametrize("name", SIDED)
def test_a_mirrored_picture_does_not_pass(name: str):
    assert share([CONCEPTS[name].grade(ImageOps.mirror(p)) for p in samples(name)]) == 0


def test_a_star_without_its_eye_or_pupil_does_not_pass():
    rng = random.Random(4)
    grades = []
    for _ in range(30):
        colour, behind = rng.sample(VIVID, 2)
        canvas = world.Canvas([world.paint(behind, rng)])
        canvas.shape("star", 48, 48, 34, 0, world.paint(colour, rng))
        if rng.random() < 0.5:
            canvas.disc(48, 49, 12, world.paint("white", rng))
        grades.append(CONCEPTS["eyestar"].grade(canvas.finish()))
    assert share(grades) == 0


def test_a_circle_with_an_eye_is_no_star():
    rng = random.Random(4)
    grades = []
    for _ in range(30):
        colour, behind = rng.sample(VIVID, 2)
        canvas = world.Canvas([world.paint(behind, rng)])
        canvas.shape("circle", 48, 48, 30, 0, world.paint(colour, rng))
        canvas.disc(48, 49, 12, world.paint("white", rng))
        canvas.disc(48, 49, 6, world.paint("black", rng))
        grades.append(CONCEPTS["eyestar"].grade(canvas.finish()))
    assert share(grades) <= 0.1
