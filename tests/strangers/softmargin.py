"""A stranger's group risk, as a user would write it: a logistic loss of the gap of two means."""

from theory import xp
from theory.objectives import Group, register


@register("softmargin")
class Softmargin(Group):
    """Softplus of the missed gap of the group means, plus the spread around their middle."""

    spread: float = 0.3
    positive = ("spread",)
    citation = "an example"

    def group_risk(self, r_y, r_own, w_y, w_own):
        expert, own = xp.weighted_mean(r_y, w_y), xp.weighted_mean(r_own, w_own)
        middle = xp.expand_dims(0.5 * (expert + own), axis=-1)
        around = xp.weighted_mean(xp.square(r_y - middle), w_y)
        around = around + xp.weighted_mean(xp.square(r_own - middle), w_own)
        return xp.softplus(own - expert) + self.spread * around
