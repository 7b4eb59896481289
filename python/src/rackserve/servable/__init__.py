"""Whether a vLLM release can serve what lies in a model's folder.

It is asked twice: by `bundle build`, which knows no instance, and by preflight for each instance. The room lies below
those of both, and reads a folder and what is known of the release.
"""

from rackserve.servable._facts import Capability, Facts, facts_of, flag_holders, known_releases, of_release, since_when
from rackserve.servable._quantization import quantization_floor
from rackserve.servable._safetensors import Tensor, read_header
from rackserve.servable._servable import servable
from rackserve.servable._snapshot import Finding, Use

__all__ = [
    "Capability",
    "Facts",
    "Finding",
    "Tensor",
    "Use",
    "facts_of",
    "flag_holders",
    "known_releases",
    "of_release",
    "quantization_floor",
    "read_header",
    "servable",
    "since_when",
]
