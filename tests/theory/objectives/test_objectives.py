"""The registry: what exists and what does not, losses against independent formulas, extremes."""

from __future__ import annotations

import re

import mpmath as mp
import numpy as np
import pytest
import torch
import torch.nn.functional as functional
from hypothesis import given
from hypothesis import strategies as st

from lab.evidence import ClaimRecorder
from tests.theory.objectives.test_links import EVERY, applies
from tests.theory.strategies import Instance, games, label
from theory import InvalidInput, Unavailable, objectives, saddle_point, xp
from theory import theorem_checks as checks
from theory.objectives import Objective

POINTWISE = [
    "spif",
    "iq_learn",
    "policy_only",
    "nwj",
    "exponential",
    "gail",
    "airl",
    "space",
    "brier",
    "ipm",
    "sppo",
]
PAIRWISE = ["spin", "dpo", "spin_hinge", "spin_exponential", "ipo", "inpo", "tspin", "alpha_spin"]
GROUP = ["centred_spif", "renyi"]
PARAMETERS = {
    "spif": {"c": 1.0, "alpha": 0.5},
    "iq_learn": {"c": 1.0},
    "policy_only": {"c": 1.0},
    "ipm": {"bound": 1.0},
    "space": {"mu": 1.0},
    "ipo": {"margin": 1.0},
    "inpo": {"margin": 0.5},
    "tspin": {"history_weight": 0.1},
    "alpha_spin": {"base_weight": 0.5},
    "centred_spif": {"c": 1.0},
    "renyi": {"order": 0.5},
}


# --- what exists ---------------------------------------------------------------------------------


def test_names_forms_needs_and_parameters() -> None:
    assert objectives.names() == POINTWISE + PAIRWISE + GROUP
    forms = dict.fromkeys(POINTWISE, "pointwise") | dict.fromkeys(PAIRWISE, "pairwise")
    needs = {"sppo": {"preference"}, "inpo": {"anchor"}, "tspin": {"history"}}
    for name in objectives.names():
        obj = objectives.get(name)
        assert obj.form == forms.get(name, "group")
        assert obj.needs == needs.get(name, set())
        assert vars(obj) == PARAMETERS.get(name, {})
        assert obj.name == name
        assert obj.source in ("paper", "reconstruction")
        assert len(obj.citation) > 20
        shown = ", ".join(f"{k}={v:g}" for k, v in vars(obj).items())
        assert obj.label == (f"{name}({shown})" if shown else name)


def test_parameters_may_be_any_real_number() -> None:
    for value in (2, np.float32(2), np.int64(2), np.float64(2)):
        assert objectives.get("spif", c=value).label == "spif(c=2, alpha=0.5)"


NO_FORM = "the definition gives no"
STAIRCASE, FREE = "best response is a staircase", "reference-free"
PAIRS, VALUE = r"a mean over pairs p x pi", "a log of means"
CONIC_PAIRS = {"saddle": PAIRS, "conic_game": NO_FORM}
STEP = "the step kappa_t changes with Delta_t"
ABSENT = {
    "spif": {},
    "iq_learn": {},
    "policy_only": {},
    "nwj": {},
    "exponential": {},
    "gail": dict.fromkeys(["loss", "risk"], r"starts at r = 0, where log\(1 - e\^-r\) is -inf"),
    "airl": {},
    "space": {},
    "brier": {},
    "ipm": dict.fromkeys(["loss", "risk"], "the bound on r is a constraint"),
    "sppo": {
        "saddle": "a Nash equilibrium of the preference",
        "potential": "a skew operator without a potential",
        "conic_game": NO_FORM,
        "conic_potential": NO_FORM,
    },
    "spin": CONIC_PAIRS,
    "dpo": CONIC_PAIRS,
    "spin_hinge": CONIC_PAIRS
    | {"link": STAIRCASE, "reward": STAIRCASE, "conic_potential": NO_FORM}
    | {"potential": STAIRCASE, "equilibrium": STAIRCASE},
    "spin_exponential": CONIC_PAIRS,
    "ipo": CONIC_PAIRS | {"potential": STEP},
    "inpo": CONIC_PAIRS | {"potential": STEP},
    "tspin": CONIC_PAIRS
    | {"link": FREE, "reward": FREE, "conic_potential": NO_FORM}
    | {"potential": FREE, "equilibrium": FREE},
    "alpha_spin": CONIC_PAIRS
    | {"potential": "start from the mixture", "equilibrium": "depends on beta and on the base"},
    "centred_spif": {"loss": "needs all responses of a prompt at once; use risk"},
    "renyi": {"loss": VALUE, "saddle": VALUE, "conic_game": NO_FORM},
}
PARTS = ["link", "reward", "loss", "risk", "saddle", "potential", "equilibrium"]
PARTS += ["conic_game", "conic_potential"]
LAW = np.array([0.3, 0.7])
VERBS = {
    "link": lambda o: o.link(0.1, 0.0),
    "reward": lambda o: o.reward(LAW, LAW),
    "loss": lambda o: o.loss(0.1, 0.2, 1.0),
    "risk": lambda o: o.risk(LAW, LAW, 1.0),
    "saddle": lambda o: o.value(LAW, LAW, LAW),
    "potential": lambda o: o.potential(LAW, LAW),
    "equilibrium": lambda o: o.require("equilibrium"),
    "conic_game": lambda o: o.require("conic_game"),
    "conic_potential": lambda o: o.require("conic_potential"),
}


@pytest.mark.parametrize("name", POINTWISE + PAIRWISE + GROUP)
def test_what_is_absent_says_why(name: str) -> None:
    """Exactly these parts are missing, and the verb of each raises its sentence."""
    obj = objectives.get(name)
    assert {part for part in PARTS if obj.missing(part)} == set(ABSENT[name])
    assert obj.has_link == ("link" not in ABSENT[name])
    assert obj.has_loss == ("loss" not in ABSENT[name])
    assert obj.has_saddle == ("saddle" not in ABSENT[name])
    for part, reason in ABSENT[name].items():
        sentence = f"^{name} has no {part.replace('_', ' ')}: .*{reason}"
        with pytest.raises(Unavailable, match=sentence):
            VERBS[part](obj)
    if "saddle" in ABSENT[name] and "link" not in ABSENT[name]:
        with pytest.raises(Unavailable, match=ABSENT[name]["saddle"]):
            saddle_point(LAW, LAW, obj)


def test_an_empty_definition_says_what_it_lacks() -> None:
    for form, link, loss, reward in (
        (
            objectives.Pointwise,
            "neither link_formula nor a and b",
            "nor expert_term and",
            "a and b",
        ),
        (objectives.Pairwise, "neither link_formula nor gain", "no pair_loss", "nor pair_loss"),
        (objectives.Group, "neither link_formula nor gain", "use risk", "nor group_risk"),
    ):
        obj = type("Empty", (form,), {})()
        assert (obj.has_link, obj.has_loss, obj.has_saddle) == (False, False, False)
        for verb, reason in (("link", link), ("loss", loss), ("reward", reward)):
            with pytest.raises(Unavailable, match=reason):
                VERBS[verb](obj)
        assert obj.missing("risk")
        assert obj.missing("potential")


# --- registering and loading ---------------------------------------------------------------------


FILE = """
from theory.objectives import Pairwise, register
@register({name!r})
class Mine(Pairwise):
    power: float{default}
    def pair_loss(self, d):
        return (1 - d) ** self.power
{after}
"""


def test_a_file_is_loaded_and_read_again(tmp_path) -> None:
    path = tmp_path / "mine.py"
    path.write_text(FILE.format(name="first", default=" = 2.0", after=""))
    assert objectives.load_file(path) == ["first"]
    assert objectives.get("first", power=4).loss(0.0, 0.0, 1.0) == 1.0
    assert objectives.names()[-1] == "first"
    path.write_text(FILE.format(name="second", default="", after=""))
    assert objectives.load_file(str(path)) == ["second"]
    assert "first" not in objectives.names()
    with pytest.raises(InvalidInput, match="second: missing parameter 'power'"):
        objectives.get("second")


def test_a_failing_file_leaves_the_registry_alone(tmp_path) -> None:
    before = objectives.names()
    path = tmp_path / "mine.py"
    for after, message in (
        ("raise RuntimeError('no')", "RuntimeError: no"),
        ("import sys; sys.exit(3)", "SystemExit: 3"),
        ("register('spif')(Mine)", "'spif' is taken"),
    ):
        path.write_text(FILE.format(name="mine", default=" = 2.0", after=after))
        with pytest.raises(InvalidInput, match=f"^{re.escape(str(path))}: .*{message}"):
            objectives.load_file(path)
        assert objectives.names() == before


# --- losses against independent formulas ---------------------------------------------------------

SIDES = ("expert", "policy")
beta_strategy = st.floats(0.02, 5.0)


def logps(seed: int, size: int = 64):
    """Log-probabilities of winner and loser under policy and reference, as a trainer has them."""
    drawn = np.random.default_rng(seed).normal(-40, 15, (4, size))
    return (torch.tensor(x, dtype=torch.float64) for x in drawn)


@given(seed=st.integers(0, 2**32 - 1), beta=beta_strategy)
def test_losses_are_those_of_the_common_trainer(seed: int, beta: float) -> None:
    """sigmoid, hinge and ipo as published in TRL 1.16, written out from their definitions."""
    policy_w, policy_l, ref_w, ref_l = logps(seed)
    logits = (policy_w - policy_l) - (ref_w - ref_l)
    expected = {
        "spin": -functional.logsigmoid(beta * logits),
        "dpo": -functional.logsigmoid(beta * logits),
        "spin_hinge": torch.relu(1 - beta * logits),
        "ipo": beta**2 * (logits - 1 / (2 * beta)) ** 2,
        "inpo": beta**2 * (logits - 1 / (2 * beta)) ** 2,
    }
    for name, loss in expected.items():
        obj = objectives.get(name, **({"margin": 0.5} if name == "ipo" else {}))
        x, y = policy_w - ref_w, policy_l - ref_l
        ours = obj.loss(x, y, beta, **checks.extras_for(obj, x, y))
        np.testing.assert_allclose(ours, loss, atol=1e-9, rtol=1e-10, err_msg=f"{name}, TRL")


@pytest.mark.claim("T11.sppo", regime="tabular")
@given(seed=st.integers(0, 2**32 - 1), beta=beta_strategy)
def test_sppo_hard_is_pointwise_spif(claim, seed: int, beta: float) -> None:
    """beta^2 sppo_hard = SPIF(c = 2) + 1/2 = SPPO with P = 1 and 0."""
    policy_w, policy_l, ref_w, ref_l = logps(seed)
    a, b = policy_w - ref_w, policy_l - ref_l
    hard = beta**2 * ((a - 0.5 / beta) ** 2 + (b + 0.5 / beta) ** 2)
    spif = objectives.get("spif", c=2.0).loss(a, b, beta)
    claim.close(spif + 0.5, hard, atol=1e-9, rtol=1e-10, what="SPIF(c=2) + 1/2")
    labels = {"expert_preference": 1.0, "policy_preference": 0.0}
    sppo = objectives.get("sppo").loss(a, b, beta, **labels)
    claim.close(sppo, hard, atol=1e-9, rtol=1e-10, what="SPPO with hard labels")
    soft = np.random.default_rng(seed).uniform(size=(2, 64))
    given_p = {f"{k}_preference": torch.tensor(p) for k, p in zip(SIDES, soft, strict=True)}
    terms = [
        beta**2 * (x - (p - 0.5) / beta) ** 2 for x, p in zip((a, b), given_p.values(), strict=True)
    ]
    sppo = objectives.get("sppo").loss(a, b, beta, **given_p)
    claim.close(sppo, sum(terms), atol=1e-9, rtol=1e-10, what="SPPO, eq. 4.7 times beta^2")


LOSS = {
    "spif": lambda x, y: -x + x**2 / 2 + y + y**2 / 2,
    "iq_learn": lambda x, y: -x + x**2 + y,
    "policy_only": lambda x, y: -x + y + y**2,
    "nwj": lambda x, y: -x + mp.exp(y - 1),
    "exponential": lambda x, y: mp.exp(-x) + mp.exp(y),
    "airl": lambda x, y: mp.log(1 + mp.exp(-x)) + mp.log(1 + mp.exp(y)),
    "space": lambda x, y: mp.log(1 + mp.exp(-x)) + mp.log(1 + mp.exp(y)),
    "brier": lambda x, y: (1 + mp.exp(x)) ** -2 + (1 + mp.exp(-y)) ** -2,
    "sppo": lambda x, y: (x - 0.5) ** 2 + (y + 0.5) ** 2,
    "spin": lambda x, y: mp.log(1 + mp.exp(y - x)),
    "dpo": lambda x, y: mp.log(1 + mp.exp(y - x)),
    "spin_hinge": lambda x, y: max(mp.mpf(0), 1 - x + y),
    "spin_exponential": lambda x, y: mp.exp(y - x),
    "ipo": lambda x, y: (x - y - 1) ** 2,
    "inpo": lambda x, y: (x - y - 0.5) ** 2,
    "tspin": lambda x, y: mp.log(1 + mp.exp(y - x)) + mp.log(1 + mp.exp(-y)) / 10,
    "alpha_spin": lambda x, y: mp.log(1 + mp.exp(y - x)),
    "centred_spif": lambda x, y: ((x - y) / 2 - 1) ** 2,
    "renyi": lambda x, y: y - x,
}
"""Loss at implicit rewards x (expert) and y (own), default parameters; history reward 0."""


@pytest.mark.parametrize("name", LOSS)
def test_loss_at_extreme_logratios(name: str) -> None:
    """Exact to the dtype at +-700 nats, in value and gradient; inf only beyond its range."""
    obj = objectives.get(name)
    grid = [(x, y) for x in checks.RATIOS for y in checks.RATIOS]
    with mp.workdps(700):
        at = [(mp.mpf(float(x)), mp.mpf(float(y))) for x, y in grid]
        true = [LOSS[name](x, y) for x, y in at]
        h = mp.mpf(10) ** -30
        slopes = [
            [(LOSS[name](x + h, y) - LOSS[name](x - h, y)) / (2 * h) for x, y in at],
            [(LOSS[name](x, y + h) - LOSS[name](x, y - h)) / (2 * h) for x, y in at],
        ]
    for dtype in (torch.float64, torch.float32):
        x, y = (torch.tensor(z, dtype=dtype, requires_grad=True) for z in np.transpose(grid))
        extras = checks.extras_for(obj, x.detach(), y.detach())
        if obj.has_loss:
            value = obj.loss(x, y, 1.0, **extras)
        else:
            value = obj.risk(x[:, None], y[:, None], 1.0, **extras)
        found = [value, *torch.autograd.grad(value.sum(), (x, y))]
        size = (1 + np.abs(grid).sum(-1)) ** 2
        names = ("loss", "d/dx", "d/dy")
        for what, got, expected in zip(names, found, [true, *slopes], strict=True):
            assert_to_dtype(got.detach().numpy(), expected, size, f"{name} {what} {dtype}")
        if obj.has_loss:
            arrays = [z.detach().numpy() for z in (x, y)]
            extras = checks.extras_for(obj, *arrays)
            ours = obj.loss(*arrays, 1.0, **extras)
            assert ours.dtype == arrays[0].dtype
            assert_to_dtype(ours, true, size, f"{name} numpy {dtype}")


def assert_to_dtype(got: np.ndarray, true: list, size: np.ndarray, what: str) -> None:
    """Compare with exact numbers: rounding of the dtype, and infinite iff beyond its range."""
    limits = np.finfo(got.dtype)
    for value, exact, scale in zip(got, true, size, strict=True):
        if abs(exact) > float(limits.max):
            assert np.isinf(value), f"{what}: {value} where the truth is {mp.nstr(exact, 5)}"
            assert (value > 0) == (exact > 0), what
        else:
            error = abs(mp.mpf(float(value)) - exact)
            allowed = float(limits.eps) * (2000 * abs(exact) + 8 * scale)
            assert np.isfinite(value), f"{what}: {value} where the truth is {mp.nstr(exact, 5)}"
            assert error <= allowed, f"{what}: {value} against {mp.nstr(exact, 12)}"


LINK = {
    "spif": lambda u: mp.tanh(u / 2),
    "iq_learn": lambda u: (1 - mp.exp(-u)) / 2,
    "policy_only": lambda u: (mp.exp(u) - 1) / 2,
    "nwj": lambda u: 1 + u,
    "exponential": lambda u: u / 2,
    "gail": lambda u: mp.log(1 + mp.exp(u)),
    "sppo": lambda u: mp.tanh(u / 2) / 2,
    "spin_exponential": lambda u: u / 2,
    "ipo": lambda u: mp.tanh(u / 2) / 1.25,
    "inpo": lambda u: mp.tanh(u / 2) / 2.5,
    "centred_spif": lambda u: mp.tanh(u / 2),
} | dict.fromkeys(["airl", "space", "brier", "spin", "dpo", "alpha_spin", "renyi"], lambda u: u)
"""Links at Delta = 1/2, default parameters."""


@pytest.mark.parametrize("name", LINK)
def test_link_at_extreme_logratios(name: str) -> None:
    obj = objectives.get(name)
    with mp.workdps(700):
        at = [mp.mpf(float(u)) for u in checks.RATIOS]
        h = mp.mpf(10) ** -30
        true = [LINK[name](u) for u in at]
        slope = [(LINK[name](u + h) - LINK[name](u - h)) / (2 * h) for u in at]
    for dtype in (torch.float64, torch.float32):
        u = torch.tensor(checks.RATIOS, dtype=dtype, requires_grad=True)
        r = obj.link(u, 0.5)
        (gradient,) = torch.autograd.grad(r.sum(), u)
        size = 1 + np.abs(checks.RATIOS)
        assert_to_dtype(r.detach().numpy(), true, size, f"{name} link {dtype}")
        assert_to_dtype(gradient.numpy(), slope, size, f"{name} slope {dtype}")
        as_numpy = obj.link(u.detach().numpy(), 0.5)
        assert as_numpy.dtype == u.detach().numpy().dtype
        assert_to_dtype(as_numpy, true, size, f"{name} numpy {dtype}")
    assert set(LINK) == {n for n in objectives.names() if objectives.get(n).has_link} - {"ipm"}


@pytest.mark.parametrize("obj", EVERY, ids=label)
def test_no_nan_at_extremes(obj: Objective) -> None:
    game = Instance(LAW[None], LAW[None], LAW[None], np.random.default_rng(0))
    checks.check_extremes(obj, game, ClaimRecorder())


@pytest.mark.parametrize("obj", EVERY, ids=label)
@given(seed=st.integers(0, 2**32 - 1))
def test_numpy_and_torch_agree(obj: Objective, seed: int) -> None:
    game = Instance(LAW[None], LAW[None], LAW[None], np.random.default_rng(seed))
    checks.check_numpy_and_torch(obj, game, ClaimRecorder())


ELEMENTARY = {
    "exp": mp.exp,
    "expm1": mp.expm1,
    "tanh": mp.tanh,
    "softplus": lambda x: mp.log1p(mp.exp(x)),
    "sigmoid": lambda x: 1 / (1 + mp.exp(-x)),
    "log_sigmoid": lambda x: -mp.log1p(mp.exp(-x)),
    "square": lambda x: x * x,
}


@pytest.mark.parametrize("name", ELEMENTARY)
def test_elementary_functions_keep_their_digits(name: str) -> None:
    """Relative accuracy of value, slope and curvature, far out and near 0."""
    x = np.array([-600.0, -90.0, -37.5, -1.5, -1.0, -1e-3, -1e-9, 0, 1e-9, 0.3, 1.5, 40, 90, 600])
    with mp.workdps(600):
        at = [mp.mpf(float(v)) for v in x]
        h = mp.mpf(10) ** -60
        f = ELEMENTARY[name]
        value = [f(v) for v in at]
        slope = [(f(v + h) - f(v - h)) / (2 * h) for v in at]
        bend = [(f(v + h) - 2 * f(v) + f(v - h)) / h**2 for v in at]
        true = [np.array([float(v) for v in row]) for row in (value, slope, bend)]
    point = torch.tensor(x, requires_grad=True)
    first = getattr(xp, name)(point)
    (second,) = torch.autograd.grad(first.sum(), point, create_graph=True)
    (third,) = torch.autograd.grad(second.sum(), point)
    for got, expected in zip((first, second, third), true, strict=True):
        got = got.detach().numpy()
        # 1 - tanh^2, and the curvature of s near 0, are accurate absolutely, not relatively
        absolute = {"tanh": 1e-15, "sigmoid": 1e-16 if expected is true[2] else 1e-300}
        np.testing.assert_allclose(got, expected, rtol=1e-12, atol=absolute.get(name, 1e-300))
    np.testing.assert_allclose(getattr(xp, name)(x), true[0], rtol=1e-12, atol=1e-300)


def test_array_helpers() -> None:
    x = np.array([[0.0, -np.inf, 3.0], [-np.inf, -np.inf, -np.inf]])
    np.testing.assert_allclose(xp.logsumexp(x), [np.logaddexp(0, 3), -np.inf])
    np.testing.assert_allclose(xp.logsumexp(x, axis=0), [0, -np.inf, 3])
    huge = np.array([1e300, 1e300 * (1 - 1e-15)])
    np.testing.assert_array_equal(np.exp(xp.log_normalise(huge)), [1, 0])
    np.testing.assert_allclose(xp.log_normalise(np.array([-2000.0, -2000.0])), -np.log(2))
    for weight in ([1e16, 1e16 + 2], [1e16, 1e16 + 2, -1e18]):  # steps of 2 are all that is left
        total = np.exp(xp.log_normalise(np.array(weight))).sum()
        np.testing.assert_allclose(total, 1.0, rtol=1e-14)
    np.testing.assert_array_equal(xp.sign(np.array([-2.0, 0.0, 5.0])), [-1, 0, 1])
    np.testing.assert_array_equal(xp.relu(np.array([-2.0, 0.0, 5.0])), [0, 0, 5])
    value, weight = np.array([[1.0, np.nan], [3.0, 5.0]]), np.array([[2.0, 0.0], [1.0, 3.0]])
    np.testing.assert_allclose(xp.weighted_mean(value, weight), [1.0, 4.5])
    np.testing.assert_allclose(xp.weighted_mean(value[1], None), 4.0)
    np.testing.assert_allclose(xp.weighted_mean(value[1:], weight[1:], axis=0), [3, 5])


# --- risks ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("obj", applies(checks.check_risk_is_expectation), ids=label)
@given(game=games())
def test_risk_is_the_mean_over_pairs(obj: Objective, game: Instance) -> None:
    checks.check_risk_is_expectation(obj, game, ClaimRecorder())


@pytest.mark.parametrize("name", [n for n in objectives.names() if n not in ("gail", "ipm")])
@pytest.mark.parametrize("torch_too", [False, True], ids=["numpy", "torch"])
def test_weight_zero_ignores_what_stands_there(name: str, torch_too: bool) -> None:
    """NaN and inf at weight 0 reach neither value nor gradient, in log-ratios and extras."""
    obj = objectives.get(name)
    rng = np.random.default_rng(1)
    x, y = rng.normal(size=(2, 3)), rng.normal(size=(2, 4))
    w, v = rng.uniform(0.1, 1, (2, 3)), rng.uniform(0.1, 1, (2, 4))
    extras = checks.extras_for(obj, x, y, tau=0.7)
    if "history" in obj.needs:
        extras["history_law"] = v
    clean = obj.risk(x, y, 0.8, w, v, **extras)
    assert clean.shape == (2,)
    bad = np.array([[np.nan, np.inf], [-np.inf, np.nan]])

    def padded(array, filling):
        return np.concatenate([array, filling], axis=-1)

    wide = [padded(x, bad), padded(y, bad), padded(w, 0 * w[:, :2]), padded(v, 0 * v[:, :2])]
    wide_extras = {
        k: e if np.ndim(e) == 0 else padded(e, 0 * v[:, :2] if k == "history_law" else bad)
        for k, e in extras.items()
    }
    if not torch_too:
        padded_risk = obj.risk(wide[0], wide[1], 0.8, wide[2], wide[3], **wide_extras)
        np.testing.assert_allclose(padded_risk, clean, rtol=1e-14)
        return
    x, y = (torch.tensor(z, requires_grad=True) for z in wide[:2])
    given_extras = {k: e if np.ndim(e) == 0 else torch.tensor(e) for k, e in wide_extras.items()}
    risk = obj.risk(x, y, 0.8, *map(torch.tensor, wide[2:]), **given_extras)
    np.testing.assert_allclose(risk.detach().numpy(), clean, rtol=1e-14)
    for gradient, inner in zip(torch.autograd.grad(risk.sum(), (x, y)), (3, 4), strict=True):
        assert torch.isfinite(gradient).all()
        assert (gradient[:, inner:] == 0).all()
        assert (gradient[:, :inner] != 0).any()


def test_weights_are_normalised_and_none_is_uniform() -> None:
    rng = np.random.default_rng(2)
    x, y, w, v = rng.normal(size=(4, 2, 5))
    w, v = np.exp(w), np.exp(v)
    for name in ("spif", "spin", "centred_spif", "renyi"):
        obj = objectives.get(name)
        once = obj.risk(x, y, 1.0, w, v)
        np.testing.assert_allclose(obj.risk(x, y, 1.0, 7 * w, 0.1 * v), once, rtol=1e-13)
        ones = np.ones(5)
        np.testing.assert_allclose(obj.risk(x, y, 1.0), obj.risk(x, y, 1.0, ones, ones), rtol=1e-14)


@given(seed=st.integers(0, 2**32 - 1), shape=st.sampled_from([(), (3,), (2, 1, 3)]))
def test_shapes(seed: int, shape: tuple[int, ...]) -> None:
    """Losses broadcast elementwise; risks reduce G and K to one number a prompt."""
    rng = np.random.default_rng(seed)
    for name in objectives.names():
        obj = objectives.get(name)
        x, y = rng.normal(size=(*shape, 3)), rng.normal(size=(*shape, 5))
        if not obj.missing("risk"):
            assert np.shape(obj.risk(x, y, 1.0, **checks.extras_for(obj, x, y))) == shape
        if obj.has_loss:
            x, y = x[..., :, None], y[..., None, :]
            assert np.shape(obj.loss(x, y, 1.0, **checks.extras_for(obj, x, y))) == (*shape, 3, 5)


@pytest.mark.claim("T17.finite_groups", regime="tabular")
@given(seed=st.integers(0, 2**32 - 1), c=st.floats(0.1, 5), beta=beta_strategy)
def test_single_pair_of_centred_spif_is_ipo(claim, seed: int, c: float, beta: float) -> None:
    """G = K = 1: c/4 times IPO with margin 2/c."""
    x, y = np.random.default_rng(seed).normal(size=(2, 50))
    group = objectives.get("centred_spif", c=c).risk(x[:, None], y[:, None], beta)
    pair = objectives.get("ipo", margin=2 / c).loss(x, y, beta)
    claim.close(group, 0.25 * c * pair, atol=1e-12, rtol=1e-11, what="centred SPIF of one pair")


@pytest.mark.claim("T17.exact", regime="tabular")
@given(game=games(), c=st.floats(0.1, 5))
def test_centred_spif_is_spif_with_its_best_baseline(claim, game: Instance, c: float) -> None:
    """SPIF's risk minimised over a per-prompt shift of the reward, up to the constant 1/c."""
    p, q = game.expert, game.start
    x, y = game.rng.normal(size=(2, *p.shape))
    spif = objectives.get("spif", c=c)
    baseline = 0.5 * ((p * x).sum(-1) + (q * y).sum(-1))[..., None]
    best = spif.risk(x - baseline, y - baseline, 1.0, p, q)
    centred = objectives.get("centred_spif", c=c).risk(x, y, 1.0, p, q)
    claim.close(centred, best + 1 / c, atol=1e-10, rtol=1e-11, what="SPIF at the baseline")
    for shift in (-0.1, 0.1):
        other = spif.risk(x - baseline - shift, y - baseline - shift, 1.0, p, q)
        claim.below(best, other, what="no other baseline is better")


@given(game=games(), order=st.floats(0.05, 0.95))
def test_renyi_risk(game: Instance, order: float) -> None:
    p, q = game.expert, game.start
    x, y = game.rng.normal(size=(2, *p.shape))
    expected = (
        np.log((p * np.exp(-(1 - order) * x)).sum(-1)) / (1 - order)
        + np.log((q * np.exp(order * y)).sum(-1)) / order
    )
    ours = objectives.get("renyi", order=order).risk(x, y, 1.0, p, q)
    np.testing.assert_allclose(ours, expected, atol=1e-12)


# --- extras --------------------------------------------------------------------------------------


def test_anchor_adds_to_the_implicit_reward() -> None:
    """tau log pi/pi_ref on both sides, for every loss that has an anchor."""
    rng = np.random.default_rng(3)
    x, y, ax, ay = rng.normal(size=(4, 6))
    for name in objectives.names():
        obj = objectives.get(name)
        if not obj.has_loss or obj.reference_free:
            continue
        own = {k: v for k, v in checks.extras_for(obj, x, y).items() if "preference" in k}
        got = obj.loss(x, y, 0.7, tau=0.3, expert_anchor=ax, policy_anchor=ay, **own)
        moved = (0.7 * x + 0.3 * ax) / 0.7, (0.7 * y + 0.3 * ay) / 0.7
        rest = checks.extras_for(obj, *moved)
        np.testing.assert_allclose(got, obj.loss(*moved, 0.7, **rest), rtol=1e-12)


def test_extras_may_be_lists() -> None:
    obj = objectives.get("inpo")
    x, y, ax, ay = np.random.default_rng(3).normal(size=(4, 6))
    for verb in (obj.loss, obj.risk):
        lists = verb(
            x.tolist(), y.tolist(), 0.7, tau=0.3, expert_anchor=ax.tolist(), policy_anchor=list(ay)
        )
        arrays = verb(x, y, 0.7, tau=0.3, expert_anchor=ax, policy_anchor=ay)
        np.testing.assert_array_equal(lists, arrays)


def test_history_term() -> None:
    rng = np.random.default_rng(4)
    x, y, h = rng.normal(-3, 1, size=(3, 6))
    obj = objectives.get("tspin", history_weight=0.4)

    def logistic(d):
        return np.log1p(np.exp(-d))

    got = obj.loss(x, y, 0.5, history_logratio=h)
    expected = logistic(0.5 * (x - y)) + 0.4 * logistic(0.5 * (y - h))
    np.testing.assert_allclose(got, expected, rtol=1e-13)
    p, q, start = (w / w.sum() for w in rng.uniform(0.1, 1, (3, 6)))
    risk = obj.risk(x, y, 0.5, p, q, history_logratio=h, history_law=start)
    first = np.einsum("i,j,ij", p, q, logistic(0.5 * (x[:, None] - y)))
    second = np.einsum("i,j,ij", q, start, logistic(0.5 * (y[:, None] - h)))
    np.testing.assert_allclose(risk, first + 0.4 * second, rtol=1e-13)
    uniform = obj.risk(x, y, 0.5, p, q, history_logratio=h)
    even = obj.risk(x, y, 0.5, p, q, history_logratio=h, history_law=np.full(6, 1 / 6))
    np.testing.assert_allclose(uniform, even, rtol=1e-13)


@given(game=games(), seed=st.integers(0, 99))
def test_sppo_reward_is_the_mean_win_rate(game: Instance, seed: int) -> None:
    p, q = game.expert, game.start
    on_p, on_q = np.random.default_rng(seed).uniform(size=(2, *p.shape))
    reward = objectives.get("sppo").reward(p, q, expert_preference=on_p, policy_preference=on_q)
    np.testing.assert_allclose(reward, (p * on_p + q * on_q) / (p + q) - 0.5, atol=1e-14)


def test_opponents() -> None:
    rng = np.random.default_rng(5)
    now, first, base = np.log(rng.dirichlet(np.ones(4), 3))
    for name in objectives.names():
        obj = objectives.get(name)
        if name != "alpha_spin":
            assert obj.opponent(now, first, base) is now
    weight = np.exp(now) ** 0.75 * np.exp(base) ** 0.25
    mixed = objectives.get("alpha_spin", base_weight=0.25).opponent(now, first, base)
    np.testing.assert_allclose(np.exp(mixed), weight / weight.sum(), rtol=1e-13)


@pytest.mark.parametrize("name", ["dpo", "spin_exponential", "ipo", "gail"])
def test_derivatives_are_the_same_where_the_caller_has_switched_gradients_off(name):
    obj = objectives.get(name)
    p, q = np.array([0.5, 0.3, 0.2]), np.array([0.2, 0.2, 0.6])
    slope, reward = obj.slope(np.array([-1.0, 2.0]), 0.5), obj.reward(p, q)
    with torch.no_grad():
        np.testing.assert_array_equal(obj.slope(np.array([-1.0, 2.0]), 0.5), slope)
        np.testing.assert_array_equal(obj.reward(p, q), reward)
