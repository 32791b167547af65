from .comparison import comparison as comparison
from .verdict import verdict as verdict
