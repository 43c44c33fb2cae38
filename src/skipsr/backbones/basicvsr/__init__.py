"""BasicVSR."""
from skipsr.backbones.basicvsr.config import PRESETS
from skipsr.backbones.basicvsr.network import BasicVSR
