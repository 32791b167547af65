from .parts import Facts as Facts
from .parts import Parts as Parts
from .recipes import METHODS as METHODS
from .recipes import Method as Method
from .recipes import build as build
from .recipes import method as method
