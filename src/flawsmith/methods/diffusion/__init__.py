"""What every diffusion method shares."""
