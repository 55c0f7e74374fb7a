"""Measurements on a bare GPU machine."""

from tools.gpu.packages import find_compat as _find_compat

_find_compat()
