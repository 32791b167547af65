"""Progress: what is done adds up."""

from diffrep.progress import counting, part_of


def test_parts_add_up():
    """2, 3 and 5 of 10 are 2, 5 and 10."""
    told: list[tuple] = []
    count = counting("steps", 10, lambda *words: told.append(words))
    part = part_of(10, lambda *words: told.append(words))
    for more in (2, 3, 5):
        count(more)
        part(more)
    assert told == [("steps", 2, 10), (2, 10), ("steps", 5, 10), (5, 10), ("steps", 10, 10), (10, 10)]
