"""AnomalyXFusion (arXiv 2404.19444): words, place and looks of a defect fused into a few tokens for the denoiser."""
