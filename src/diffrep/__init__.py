"""diffrep: learning representations by denoising.

`train` a method on data, `load` a run, `build` an untrained model; a model encodes, decodes, reconstructs, samples,
interpolates and states its bound. `bound` measures a whole split, `evaluate` a whole run.
"""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)  # the public names stand in __init__.pyi
