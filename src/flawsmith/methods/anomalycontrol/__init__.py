"""AnomalyControl: a reference image and a sentence about it steer a frozen denoiser (arXiv 2412.06510)."""
