from .bound import Bound as Bound
from .information import Profile as Profile
from .layers import of_diffusers as of_diffusers
from .layers import of_pipeline as of_pipeline
from .mutual_information import Information as Information
from .refine import Refined as Refined
