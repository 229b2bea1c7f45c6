"""The state classes of these tests, for clients; a server gets a copy of this file."""

from attrs import field, frozen

from playerstate import within


@frozen
class Avatar:
    """A class with three float fields."""

    x: float = field(default=350.0, metadata=within(0, 4096))
    y: float = field(default=200.0, metadata=within(0, 4096))
    heading: float = field(default=0.0, metadata=within(0, 360))
    hp: int = field(default=100, metadata=within(0, 100))
    alive: bool = True


@frozen
class Counter:
    """A class without float fields."""

    score: int = 0
    alive: bool = True
