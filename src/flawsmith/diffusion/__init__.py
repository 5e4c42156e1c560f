"""Everything that touches diffusers: backbones, the sampling loop, the compact recipe and its pretraining."""
