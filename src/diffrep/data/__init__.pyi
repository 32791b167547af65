from .examples import Examples as Examples
from .loader import Stream as Stream
from .reading import Reading as Reading
from .splits import Splits as Splits
from .splits import load as load
from .splits import whole as whole
from .streams.loader import ShardStream as ShardStream
