"""Where a run happens: in this process, or on Ray; and faults that are made on purpose on the way."""

from fedbatch.runtime.faults import Faults
from fedbatch.runtime.local import Local
from fedbatch.runtime.ray import Ray

__all__ = ["Faults", "Local", "Ray"]
