"""What is compared: predicted noise or denoising steps; and the published methods as data."""
