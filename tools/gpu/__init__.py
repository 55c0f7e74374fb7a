"""Measurements on a bare GPU machine; what theory imports and the machine lacks is stood in for."""

from tools.gpu import packages as _packages

_packages.stand_in()
