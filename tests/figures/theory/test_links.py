"""What the figure "links" shows is true of the numbers that it is drawn from."""

from figures.theory import links as figure
from tests.figures.tables import checked, matched


def test_links():
    table = checked(figure.table())
    for panel in table.panel.unique():
        found = matched(table, panel)
        assert (found.y - found.theory).abs().max() < 1e-6
    links = matched(table, "link, bounded")
    assert links[links.objective.isin(["spif", "centred_spif", "ipo"])].y.abs().max() < 1.0
    assert set(table.objective) >= {"spin", "spif", "ipo", "gail", "renyi", "ipm", "sppo"}
