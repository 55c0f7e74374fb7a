"""A stranger's pairwise loss, as a user would write it: Huber's, of the margin."""

from theory import xp
from theory.objectives import Pairwise, register


@register("huber")
class Huber(Pairwise):
    """``z^2/2`` of the missed margin ``z = margin - d``, linear from ``width`` on, both ways."""

    margin: float = 1.0
    width: float = 2.0
    positive = ("margin", "width")
    citation = "Huber, Robust estimation of a location parameter, 1964"

    def pair_loss(self, d):
        z = xp.abs(self.margin - d)
        near = xp.minimum(z, self.width)
        return near * (z - 0.5 * near)
