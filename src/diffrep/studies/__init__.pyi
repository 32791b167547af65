from .plan import Plan as Plan
from .plan import Planned as Planned
from .table import Table as Table
