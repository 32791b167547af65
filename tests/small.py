"""Settings of networks that train in a moment."""

NARROW = ("decoder.width=8", "encoder.width=8")
THIN = ("train.batch=32", "decoder.width=4", "encoder.width=4", "code.dim=4")
