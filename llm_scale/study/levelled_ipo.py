"""IPO that sees the level of rewards as well, from none (IPO) to pointwise SPIF (reconstruction).

A file as a user writes one: runs name it ``.../levelled_ipo.py:levelled_ipo(level=0.3)``.
"""

from __future__ import annotations

from typing import Any, ClassVar

from theory import xp
from theory.objectives import Pairwise, register


@register("levelled_ipo")
class LevelledIpo(Pairwise):
    """``(r_y - r_y' - m)^2 + level (r_y + r_y')^2``, m = 1 + level.

    At level 0 it is IPO. At 1 it is ``2m`` times pointwise SPIF's loss with ``c = 2/m``, plus
    ``m^2``: SPIF is IPO that also sees the level of the rewards, which a pair's difference does
    not. Near the expert its link is ``m/(1+level) tanh(u/2)``: m = 1 + level keeps the effective
    step.
    """

    level: float = 0.0
    absent: ClassVar[dict[str, str]] = dict.fromkeys(
        ("link", "reward"), "not invariant to a shift of the reward"
    )
    slope_at_zero = 0.5

    def pair_loss(self, d: Any) -> Any:
        return xp.square(d - (1.0 + self.level))

    def reward_loss(self, r_y: Any, r_own: Any, **extras: Any) -> Any:
        return self.pair_loss(r_y - r_own) + self.level * xp.square(r_y + r_own)

    def reward_risk(
        self, r_y: Any, r_own: Any, w_y: Any = None, w_own: Any = None, **extras: Any
    ) -> Any:
        """Mean over all pairs of a prompt."""
        each = self.reward_loss(r_y[..., :, None], r_own[..., None, :])
        inner = xp.weighted_mean(each, None if w_own is None else w_own[..., None, :])
        return xp.weighted_mean(inner, w_y)
