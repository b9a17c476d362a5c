"""A clock for whatever takes one: what a test says of time holds on a busy machine, too."""


class Hands:
    """A clock whose hands the test moves, in seconds; each look at it may move them as well, before it tells."""

    def __init__(self) -> None:
        self.now = 1000.0
        self.each_look = 0.0

    def __call__(self) -> float:
        self.now += self.each_look
        return self.now
