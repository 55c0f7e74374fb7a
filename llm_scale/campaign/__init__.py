"""The campaign: objectives, SFT and theory compared on the text game, by recorded runs."""
