from .disentanglement import dci as dci
from .disentanglement import mig as mig
from .disentanglement import sap as sap
from .disentanglement import tad as tad
from .protocols import Protocol as Protocol
from .quality import frechet as frechet
from .quality import kernel_distance as kernel_distance
from .quality import precision_recall as precision_recall
