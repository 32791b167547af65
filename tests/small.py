"""Settings of networks that train in a moment."""

NARROW = ("decoder.width=8", "encoder.width=8")
THIN = ("train.batch=32", "decoder.width=4", "encoder.width=4", "code.dim=4")
# a method of each kind of model; the long form of a test walks over all of them
KINDS = ("vae-vdm", "adversarial-drl", "diffae", "pdae", "soda", "vae", "mae", "simclr", "byol", "classifier")
