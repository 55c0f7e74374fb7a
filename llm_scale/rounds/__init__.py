"""A round's data and its loss, per response, per token, per preference."""
