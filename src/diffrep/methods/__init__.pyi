from .catalog import METHODS as METHODS
from .catalog import Method as Method
from .catalog import Recipe as Recipe
from .catalog import build as build
from .catalog import method as method
from .parts import Facts as Facts
from .parts import Parts as Parts
