"""Parts of the experiment, run without a progress bar."""

from toy_games import launch
from toy_games.experiments.misspecification import Settings


def run(*parts, **given):
    return launch.run("misspecification", Settings(parts=parts, **given), progress=False)
