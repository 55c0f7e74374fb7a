"""A stranger's payoffs, as a user would write them: no link is known."""

from theory import xp
from theory.objectives import Pointwise, register


@register("rooted")
class Rooted(Pointwise):
    """Logistic payoffs with a penalty ``c (sqrt(1 + r^2) - 1)`` that bounds the rewards."""

    c: float = 0.3
    positive = ("c",)
    citation = "an example"

    def a(self, r):
        return xp.log_sigmoid(r) - self.c * (xp.sqrt(1.0 + xp.square(r)) - 1.0)

    def b(self, r):
        return xp.log_sigmoid(-r) - self.c * (xp.sqrt(1.0 + xp.square(r)) - 1.0)
