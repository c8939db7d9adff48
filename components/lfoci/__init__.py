"""Which columns explain a response: CODEC, L-CODEC and L-FOCI."""

from oubli.components.lfoci.codec import codec, l_codec
from oubli.components.lfoci.foci import Selection, StopReason, l_foci, l_foci_many

__all__ = ["Selection", "StopReason", "codec", "l_codec", "l_foci", "l_foci_many"]
