"""BasicVSR: recurrent video super-resolution by four, whose residual blocks can be skipped
(SkipVSR)."""
