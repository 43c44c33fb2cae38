"""BasicVSR: recurrent super-resolution by 4 or 2; its residual blocks can be skipped (SkipVSR)."""
