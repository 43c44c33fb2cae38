"""BasicVSR: recurrent super-resolution by four; its residual blocks can be skipped (SkipVSR)."""
