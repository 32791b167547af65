from .bound import Bound as Bound
from .information import Profile as Profile
from .mutual_information import Information as Information
from .refine import Refined as Refined
