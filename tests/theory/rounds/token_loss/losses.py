"""The losses that rounds per token are played with, and those that end at maximum likelihood."""

from __future__ import annotations

from theory import objectives, theory_card

SPIN, SPIF = objectives.get("spin"), objectives.get("spif", c=1.0)
EVERY = [objectives.get(name) for name in objectives.names()]
MLE = [obj for obj in EVERY if theory_card(obj).fixed_point_is_mle and obj.name != "spin_hinge"]
MATCHED = [obj for obj in MLE if obj.name != "nwj"]  # a'(0) = -b'(0)
