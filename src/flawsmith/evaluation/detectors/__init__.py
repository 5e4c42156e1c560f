"""Networks that are trained to judge what images are worth."""
