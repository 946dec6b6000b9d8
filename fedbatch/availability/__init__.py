"""When clients can be asked: models of availability over simulated seconds."""

from fedbatch.availability.availability import Availability
from fedbatch.availability.diurnal import Diurnal
from fedbatch.availability.markov import Markov
from fedbatch.availability.trace import Trace

__all__ = ["Availability", "Diurnal", "Markov", "Trace"]
