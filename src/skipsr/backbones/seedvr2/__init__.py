"""SeedVR2: one-step (and SeedVR: many-step) diffusion video restoration, with token skipping."""
