from .classifier import DiffusionClassifier as DiffusionClassifier
from .encoder import DiffusionEncoder as DiffusionEncoder
